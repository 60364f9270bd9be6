import Configuration
import Reactor
import Testing

@testable import DataPlane

@Suite("Router")
struct RouterTests {
    static func route(_ path: String, _ methods: [String] = []) -> RouteConfiguration {
        RouteConfiguration(
            name: path, path: path, methods: methods, isPublic: false, scopes: [], upstream: 0, cost: 1,
            forwardAuthorization: false, host: nil, stripPrefix: nil, addPrefix: nil, bodyBytes: nil,
            responseTimeoutMilliseconds: nil)
    }

    static let paths = ["/", "/a", "/a/**", "/a/*/c", "/a/b/**", "/a/b/c", "/x/{id}", "/x/fixed", "/z/**"]

    @Test(
        "the most specific path wins, whatever the order",
        arguments: [
            ("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/q", "/a/**"), ("/a/q/c", "/a/*/c"),
            ("/a/q/d", "/a/**"),
            ("/a/b", "/a/b/**"), ("/a/b/c", "/a/b/c"), ("/a/b/d", "/a/b/**"), ("/x/7", "/x/{id}"),
            ("/x/fixed", "/x/fixed"), ("/x", nil), ("/x/7/8", nil), ("/z", "/z/**"), ("/nothing", nil),
            ("/ab", nil),
        ] as [(String, String?)])
    func specific(_ path: String, _ expected: String?) {
        for paths in [Self.paths, Self.paths.reversed()] {
            let router = Router(paths.map { Self.route($0) })
            let bytes = Array(path.utf8)
            let entry = router.match(bytes.span)
            let found = entry.map { paths[Int(router.entries[$0].routes[0])] }
            #expect(found == expected)
        }
    }

    @Test(
        "a path that servers take for those of two routes is refused, and no other",
        arguments: [
            ("/internal/;/admin", false), ("/;/;/internal/admin", false), ("/;x/internal/admin", false),
            ("/internal/;x=1;y/admin", false), ("/internal/admin;x", false), ("/internal;a/admin/;", false),
            ("/internal/..;/internal/admin", false), ("/internal/.;x/admin", false),
            ("/internal/admin", true), ("/internal/;/other", true), ("/;/;", true), ("/a;b/c;d/", true),
            ("/api/projects%3Aexport", false), ("/api/projects%3aexport/", false), ("/api/%40admin", false),
            ("/api/%40admin;x", false), ("/api/;x/projects%3Aexport", false), ("/%3B", false),
            ("/api/projects:export", true), ("/api/@admin", true), ("/api/projects%3Aimport", true),
            ("/api/a%3Ab;c/%25%40", true), ("/api/projects%253Aexport", true), ("/internal/admin%3Bx", true),
        ])
    func oneRoute(_ target: String, _ isAllowed: Bool) {
        let routes = ["/internal/admin", "/api/projects:export", "/api/@admin", "/;", "/**"].map {
            Self.route($0)
        }
        if case .route = RouteFinding.find("GET", target, in: routes) {
            #expect(isAllowed, "\(target)")
        } else {
            #expect(!isAllowed, "\(target)")
        }
    }

    @Test("routes of one path share it by method, and GET serves HEAD")
    func methods() throws {
        let router = Router([Self.route("/a", ["GET"]), Self.route("/a", ["POST"])])
        let path = Array("/a".utf8)
        let found = router.match(path.span)
        let entry = router.entries[try #require(found)]
        #expect(entry.routes[0] == 0 && entry.routes[1] == 0 && entry.routes[2] == 1 && entry.routes[3] == -1)
    }
}
