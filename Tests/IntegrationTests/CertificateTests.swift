import Foundation
import Testing

/// Pairs that must not be served, and the ends of those that are.
@Suite("Certificates", .serialized)
struct CertificateTests {
    /// A root, an intermediate, and leaves of its for `localhost` and `*.wild.test`.
    private struct Authority {
        let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
            let outcome = try ChildProcess.run("bash", ["-c", Self.script, "bash", folder.root])
            guard outcome.status == 0 else { throw HarnessError(outcome.error) }
        }

        private static let script = """
            set -euo pipefail
            cd "$1"
            request() {
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
                    -keyout "$1.key" -out "$1.csr"
            }
            sign() { openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial \
                -days "$3" -extfile "$4" -out "$1.pem"; }
            echo 'basicConstraints=critical,CA:TRUE' > authority
            echo 'subjectAltName=DNS:localhost,DNS:*.wild.test' > leaf
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=root -days 100 \
                -keyout root.key -out root.pem
            request intermediate
            sign intermediate root 100 authority
            for leaf in good:60 days40:40 days29:29 days6:6 days1:1 expired:-1; do
                request "${leaf%:*}"
                sign "${leaf%:*}" intermediate "${leaf#*:}" leaf
                cat "${leaf%:*}.pem" intermediate.pem > "${leaf%:*}.chain"
            done
            cat good.pem root.pem intermediate.pem > disorder.chain
            cp good.key disorder.key
            # A beginning of one's own choice is for `openssl ca` only.
            printf '%s\\n' '[ca]' 'default_ca = d' '[d]' 'database = index' 'new_certs_dir = .' \
                'serial = serial' 'default_md = sha256' 'policy = p' '[p]' 'commonName = supplied' > ca.cnf
            : > index
            echo 01 > serial
            request future
            openssl ca -batch -config ca.cnf -in future.csr -cert root.pem -keyfile root.key -extfile leaf \
                -startdate 20990101000000Z -enddate 21000101000000Z -out future.pem
            cp future.pem future.chain
            """

        func install(_ name: String) throws {
            for kind in ["chain", "key"] {
                try folder.write(kind, try folder.read("\(name).\(kind)"))
            }
        }

        func gateway(hosts: String = "localhost") throws -> Gateway {
            try Gateway(
                Setup(try Upstream()).with {
                    $0.https = """
                        hosts: [\(hosts)]
                        certificates:
                          - { chain: "\(folder.path("chain"))", private_key: "\(folder.path("key"))" }
                        """
                })
        }
    }

    @Test("a chain out of order, over, not begun, or for other hosts is refused, and the old pair stays")
    func refused() throws {
        let authority = try Authority()
        try authority.install("good")
        let gateway = try authority.gateway(hosts: "localhost, a.wild.test")
        func isServed() throws {
            let client = try gateway.connect(
                "-CAfile", authority.folder.path("root.pem"), "-verify_return_error")
            try client.send(Gateway.request())
            #expect(try client.response().status == 200)
        }
        func check() throws -> ChildProcess.Outcome {
            try ChildProcess.run(try Gateway.binary(), ["check", "--config", gateway.configurationPath])
        }
        try isServed()
        #expect(try check().status == 0)
        let bad = [
            ("disorder", "is out of order: certificate 2 has not issued certificate 1"),
            ("expired", "the certificate of expired has expired"),
            ("future", "the certificate of future is not valid yet"),
        ]
        for (name, text) in bad {
            // The files are looked at without being told.
            try authority.install(name)
            try Deadline(seconds: 10).wait("the refusal of \(name). The gateway said: \(gateway.log)") {
                gateway.log.contains(text)
            }
            #expect(try gateway.metric("gateway_config_reload_success") == 0)
            try isServed()
            let outcome = try check()
            #expect(outcome.status == 78 && outcome.error.contains(text), "\(outcome.error)")
            // A program that is started with it does not begin to serve what callers would refuse.
            let started = try ChildProcess.run(
                try Gateway.binary(), ["run", "--config", gateway.configurationPath], within: 10)
            #expect(started.status == 78 && started.error.contains(text), "\(started.error)")
        }
        try authority.install("good")
        try gateway.reload(to: 2)
        try gateway.rewriteConfiguration { $0.replacing("a.wild.test", with: "a.b.wild.test") }
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("the refusal") {
            gateway.log.contains("no certificate covers a.b.wild.test, which listen.https.hosts names")
        }
        try isServed()
        #expect(try check().status == 78)
    }

    @Test(
        "the log says 30, 7 and 1 days ahead that a certificate ends, once, and the metric says when",
        arguments: [(40, ""), (29, "warning"), (6, "warning"), (1, "error")])
    func expiry(_ days: Int, _ level: String) throws {
        let authority = try Authority()
        try authority.install("days\(days)")
        let gateway = try authority.gateway()
        let metric = "gateway_tls_certificate_expiry_timestamp_seconds{subject=\"days\(days)\"}"
        let end = try #require(try gateway.metric(metric))
        #expect(abs(end - Date.now.timeIntervalSince1970 - Double(days) * 86_400) < 120)
        // A reload looks at the certificates again, and comes after the first look.
        try gateway.reload(to: 2)
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("the reloads") {
            gateway.log.count(of: "the configuration is good") == 2
        }
        let text = "the certificate of days\(days) ends in "
        let rests = ["\(days - 1) days and 23 hours", "\(days) days and 0 hours"]
        if level.isEmpty {
            #expect(!gateway.log.contains("the certificate of"))
        } else {
            try Deadline(seconds: 5).wait("the warning. The gateway said: \(gateway.log)") {
                rests.contains { gateway.log.contains("\(level): \(text)\($0)") }
            }
            #expect(gateway.log.count(of: "the certificate of") == 1)
        }
    }
}

extension String {
    fileprivate func count(of part: String) -> Int { components(separatedBy: part).count - 1 }
}
