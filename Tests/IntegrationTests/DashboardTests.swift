import Foundation
import Testing

/// The dashboard in a real browser. Pictures of every step are kept in `.build/screenshots`.
@Suite("Dashboard", .serialized)
struct DashboardTests {
    @Test("a walk from signing in to revocation")
    func walk() throws {
        let world = try AdminTests.World {
            $0.workers = 2
            $0.upstream = "health: { path: /healthz, interval: 200ms }\n"
            let route = "{ path: /api/projects, methods: [GET], scopes: [\"projects:read\"], upstream: main }"
            $0.routes.insert(route, at: 0)
        }
        let walk = DashboardWalk(world: world, browser: try Browser(width: 1280, height: 860))
        try walk.signIn()
        let key = try walk.generate()
        try walk.expectShownOnce(key)
        try walk.use(key)
        try walk.edit()
        let successor = try walk.rotate(key)
        try walk.revoke(key, not: successor)
        try walk.lookAround()
        try walk.expectNoTrace(of: [key, successor])
        try walk.browser.click("button", holding: "Sign out")
        _ = try walk.browser.find("input[name=token]")
    }

    @Test("the same on a telephone, in the dark, with the reading token")
    func telephone() throws {
        let world = try AdminTests.World()
        for (number, name) in ["mobile app", "partner", "nightly export"].enumerated() {
            let scopes = "[\"projects:read\",\"reports:\(number)\"]"
            _ = try world.gateway.generate(
                "{\"tier\":\"pro\",\"account\":\"globex\",\"name\":\"\(name)\",\"scopes\":\(scopes)}")
        }
        let browser = try Browser(width: 390, height: 844, isDark: true)
        try browser.signIn(world.gateway, AdminTokens.read)
        _ = try browser.find(".health .well")
        try browser.keepPicture("20-phone-overview")
        try browser.click("a[data-place=keys]")
        _ = try browser.find("td", holding: "nightly export")
        #expect(try browser.run("return document.querySelector('#generate') === null") as? Bool == true)
        try browser.keepPicture("21-phone-keys")
        try browser.type("night", into: "input[name=q]")
        try Deadline(seconds: 10).wait("the search") {
            try browser.run("return document.querySelectorAll('tbody tr').length") as? Int == 1
        }
        try browser.click("td a.strong")
        _ = try browser.find(".window-head")
        try browser.keepPicture("22-phone-key")
        // Nothing is wider than the screen.
        let fits = "return document.documentElement.scrollWidth <= innerWidth"
        #expect(try browser.run(fits) as? Bool == true)
        try browser.click("a[data-place=audit]")
        _ = try browser.find("td", holding: "admin-api")
        try browser.keepPicture("23-phone-audit")
        #expect(try browser.complaints() == [])
    }

    @Test("a creation whose answer was lost is sent again as it was, and anew when it is edited")
    func lostAnswer() throws {
        let world = try AdminTests.World()
        let browser = try Browser(width: 1280, height: 860)
        try browser.signIn(world.gateway, AdminTokens.write)
        try browser.click("a[data-place=keys]")
        for (name, isEdited) in [("again", false), ("edited", true)] {
            let before = try world.redis.command("ZCARD", "gateway:keys")
            try browser.click("#generate")
            try browser.type(name, into: "dialog input[name=name]")
            try browser.type("acme", into: "dialog input[name=account]")
            // By the time of the next press some seconds have passed.
            _ = try browser.run(
                """
                const real = window.fetch, now = Date.now;
                window.fetch = async (...parts) => {
                  const answer = await real(...parts);
                  if (parts[1]?.method !== 'POST') return answer;
                  window.fetch = real;
                  Date.now = () => now() + 5000;
                  throw new TypeError('the answer is lost');
                };
                """)
            try browser.click("dialog button[type=submit]")
            _ = try browser.find("dialog .form-error", holding: "does not answer")
            if isEdited { try browser.type("other", into: "dialog input[name=name]") }
            try browser.click("dialog button[type=submit]")
            if isEdited {
                #expect(try browser.value("dialog input.secret").hasPrefix("sk_live_"))
            } else {
                _ = try browser.find(".toast", holding: "had been made already")
                try browser.waitUntilGone("dialog")
            }
            let made = (Int(try world.redis.command("ZCARD", "gateway:keys")) ?? 0) - (Int(before) ?? 0)
            #expect(made == (isEdited ? 2 : 1))
        }
    }

    @Test("what one cannot see has a name all the same, and the keyboard leads in and out of a dialog")
    func labels() throws {
        let world = try AdminTests.World()
        let browser = try Browser(width: 1280, height: 860)
        try browser.signIn(world.gateway, AdminTokens.write)
        let unnamed = """
            const named = 'button, a, input, select, svg[role=img], section, nav, table';
            return [...document.querySelectorAll(named)].filter((one) => one.getClientRects().length)
              .filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label')
                || one.labels?.length || one.getAttribute('aria-labelledby')))
              .map((one) => one.outerHTML.slice(0, 120))
            """
        for place in ["overview", "keys", "tiers", "accounts", "audit"] {
            try browser.click("a[data-place=\(place)]")
            _ = try browser.find("h1")
            #expect(try browser.run(unnamed) as? [String] == [], "\(place)")
            #expect(try browser.run("return document.querySelectorAll('h1').length") as? Int == 1)
        }
        try browser.click("a[data-place=keys]")
        try browser.click("#generate")
        _ = try browser.find("dialog input[name=name]")
        #expect(try browser.run(unnamed) as? [String] == [])
        #expect(try browser.run("return document.activeElement.name") as? String == "name")
        try browser.press(Browser.escape)
        try browser.waitUntilGone("dialog")
    }
}

extension Browser {
    /// Keys without a letter, as WebDriver names them.
    static let enter = "\u{E007}"
    static let escape = "\u{E00C}"

    /// Opens the dashboard and signs in with a token.
    func signIn(_ gateway: Gateway, _ token: String) throws {
        try open("http://127.0.0.1:\(gateway.adminPort)/")
        try type(token + Browser.enter, into: "input[name=token]")
        _ = try find("h1", holding: "Overview")
    }
}

/// The steps of a walk, each where the one before left off.
private struct DashboardWalk {
    let world: AdminTests.World
    let browser: Browser
    var gateway: Gateway { world.gateway }

    private func status(_ key: String) throws -> Int {
        try Curl.get("https://localhost:\(gateway.httpsPort)/api/projects", key: key).status
    }

    /// With a wrong token first, by keyboard alone.
    func signIn() throws {
        try browser.open("http://127.0.0.1:\(gateway.adminPort)/")
        _ = try browser.find("input[name=token]")
        try browser.press("wrong" + Browser.enter)
        _ = try browser.find(".error", holding: "wrong")
        try browser.keepPicture("01-sign-in")
        try browser.type(AdminTokens.write + Browser.enter, into: "input[name=token]")
        _ = try browser.find("h1", holding: "Overview")
    }

    /// - Returns: the new key, read off the page.
    func generate() throws -> String {
        try browser.click("a[data-place=keys]")
        _ = try browser.find(".empty", holding: "no key yet")
        try browser.click("#generate")
        try browser.type("ci", into: "dialog input[name=name]")
        try browser.type("acme", into: "dialog input[name=account]")
        try browser.run("document.querySelector('dialog select[name=tier]').value = 'pro'")
        try browser.click("dialog .chip.add", holding: "projects:read")
        try browser.keepPicture("02-generate")
        try browser.click("dialog button[type=submit]")
        let key = try browser.value("dialog input.secret")
        #expect(key.hasPrefix("sk_live_") && key.utf8.count == 46)
        let line = try browser.text("dialog pre.curl")
        #expect(line.contains(key) && line.contains("https://127.0.0.1:\(gateway.httpsPort)/api/projects"))
        try browser.keepPicture("03-shown-once")
        try browser.click("dialog button", holding: "Copy key")
        _ = try browser.find("dialog button", holding: "Copied")
        try browser.click("dialog footer button", holding: "Done")
        try browser.waitUntilGone("dialog")
        return key
    }

    /// Not in the page once the dialog is closed, nor after a reload, nor in what the browser stores.
    func expectShownOnce(_ key: String) throws {
        #expect(try !browser.source().contains(key))
        try browser.reload()
        _ = try browser.find("td", holding: "ci")
        #expect(try !browser.source().contains(key))
        let stored =
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])"
        let text = try #require(try browser.run(stored) as? String)
        #expect(!text.contains(key) && !text.contains("gateway_session"))
    }

    func use(_ key: String) throws {
        for _ in 0..<30 { #expect(try status(key) == 200) }
        #expect(try status("sk_live_nobody") == 401)
        try browser.click("a[data-place=overview]")
        _ = try browser.find(".tile small", holding: "31 since the start")
        _ = try browser.find(".bars li", holding: "Unknown key")
        _ = try browser.find(".health .well", holding: "main")
        try Deadline(seconds: 20).wait("a line in the chart") {
            let path = try browser.run("return document.querySelector('.chart .line')?.getAttribute('d')")
            return ((path as? String) ?? "").contains("L")
        }
        try browser.keepPicture("04-overview")
        try browser.click("a[data-place=keys]")
        try browser.click("td a.strong", holding: "ci")
        _ = try browser.find(".window-head", holding: "1,000")
        _ = try browser.find(".slot")
        try Deadline(seconds: 30).wait("the last use") {
            try !browser.text("dl.facts-list").contains("never")
        }
        try browser.keepPicture("05-key")
    }

    /// With a mistake first, which the form names.
    func edit() throws {
        try browser.click(".actions button", holding: "Edit")
        try browser.type("many", into: "dialog input[name=limits]")
        try browser.click("dialog button[type=submit]")
        _ = try browser.find("dialog [data-field=limits] .error", holding: "limit")
        try browser.keepPicture("06-edit-refused")
        try browser.type("40/minute", into: "dialog input[name=limits]")
        try browser.click("dialog button[type=submit]")
        try browser.waitUntilGone("dialog")
        _ = try browser.find(".window-head", holding: "40 in")
        try browser.keepPicture("07-account-window")
    }

    /// - Returns: the key that takes over; both are valid for an hour.
    func rotate(_ key: String) throws -> String {
        try browser.click(".actions button", holding: "Rotate")
        try browser.click("dialog .choices label", holding: "1 hour")
        try browser.keepPicture("08-rotate")
        try browser.click("dialog button[type=submit]")
        let successor = try browser.value("dialog input.secret")
        #expect(successor != key)
        try browser.keepPicture("09-rotated")
        // A slip of the hand does not lose it.
        try browser.press(Browser.escape)
        #expect(try browser.value("dialog input.secret") == successor)
        try browser.click("dialog footer button", holding: "Done")
        _ = try browser.find(".notice time", holding: " UTC")
        #expect(try status(key) == 200 && status(successor) == 200)
        return successor
    }

    /// The button waits for the key's name and a reason.
    func revoke(_ key: String, not successor: String) throws {
        try browser.click(".actions button", holding: "Revoke")
        let isDisabled = "return document.querySelector('dialog button[type=submit]').disabled"
        #expect(try browser.run(isDisabled) as? Bool == true)
        try browser.type("leaked in a build log", into: "dialog input[name=reason]")
        #expect(try browser.run(isDisabled) as? Bool == true)
        try browser.type("ci", into: "dialog input[name=confirmation]")
        try browser.keepPicture("10-revoke")
        try browser.click("dialog button[type=submit]")
        _ = try browser.find(".title .badge", holding: "revoked")
        try Deadline(seconds: 3).wait("the revocation") { try status(key) == 401 }
        #expect(try status(successor) == 200)
    }

    func lookAround() throws {
        try browser.click("a[data-place=audit]")
        _ = try browser.find("td", holding: "leaked in a build log")
        try browser.keepPicture("11-audit")
        try browser.click("a[data-place=tiers]")
        _ = try browser.find(".tier", holding: "1,000")
        try browser.keepPicture("12-tiers")
        try browser.click("a[data-place=accounts]")
        try browser.click(".people a", holding: "acme")
        _ = try browser.find(".window-head")
        try browser.keepPicture("13-account")
    }

    /// No trace of a key anywhere, and nothing that the page's own policy had to stop.
    func expectNoTrace(of secrets: [String]) throws {
        var everything = try browser.source() + gateway.log + gateway.accessLog.joined()
        everything += try gateway.admin("/metrics").text
        everything += try world.redis.command("XRANGE", "gateway:audit", "-", "+")
        for secret in secrets { #expect(!everything.contains(secret)) }
        #expect(try browser.complaints() == [])
    }
}
