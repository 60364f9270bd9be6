import Testing

/// Which module may import what. Arrows point down only, and one module alone imports each C library.
@Suite("Modules")
struct ModuleTests {
    /// Everything a module may import besides the standard library.
    static let allowed: [Substring: Set<Substring>] = [
        "Reactor": ["CLinux", "Glibc", "Synchronization"],
        "TLS": ["Reactor", "COpenSSL", "Glibc", "Synchronization"],
        "HTTPWire": ["Reactor"],
        "HTTP2": ["Reactor", "HTTPWire", "CNghttp2", "Glibc"],
        "Redis": ["Reactor", "TLS", "CHiredis", "Glibc", "Synchronization"],
        "Limits": ["Synchronization"],
        "Keys": [],
        "Configuration": ["Limits", "Keys", "Reactor", "Yams"],
        "KeyManagement": [
            "Keys", "Limits", "Redis", "TLS", "Configuration", "Reactor", "Foundation", "Synchronization",
        ],
        "DataPlane": [
            "Reactor", "TLS", "HTTPWire", "HTTP2", "Redis", "Limits", "Keys", "Configuration",
            "Synchronization",
            "Glibc",
        ],
        "Dashboard": [],
        "Admin": [
            "Dashboard", "DataPlane", "KeyManagement", "Reactor", "HTTPWire", "Configuration", "Keys",
            "Limits", "Redis", "TLS",
            "Synchronization", "Foundation",
        ],
        "gateway": [
            "Admin", "DataPlane", "KeyManagement", "Configuration", "Keys", "Limits", "Redis", "TLS",
            "HTTPWire",
            "Reactor", "ArgumentParser", "Logging", "Foundation", "Glibc", "Synchronization",
        ],
    ]

    /// Modules between a caller's first byte and the upstream's last, where Foundation must not be.
    static let dataPlane: Set<Substring> = [
        "Reactor", "TLS", "HTTPWire", "HTTP2", "Redis", "Limits", "Keys", "DataPlane",
    ]

    @Test("a module imports only what stands below it")
    func importsPointDown() {
        for file in SourceTree.repository.sources {
            guard let module = file.module else { continue }
            guard let allowed = Self.allowed[module] else {
                Issue.record("\(file.path): module \(module) has no rule in ModuleTests.allowed")
                continue
            }
            for name in file.imports where !allowed.contains(name) {
                Issue.record("\(file.path): \(module) may not import \(name)")
            }
        }
    }

    @Test("a C library enters through one module")
    func oneModulePerCLibrary() {
        var importers: [Substring: Set<Substring>] = [:]
        for file in SourceTree.repository.sources {
            guard let module = file.module else { continue }
            for name in file.imports
            where ["CLinux", "COpenSSL", "CHiredis", "CNghttp2", "Yams"].contains(name) {
                importers[name, default: []].insert(module)
            }
        }
        for (library, modules) in importers {
            #expect(modules.count == 1, "\(library) is imported by \(modules.sorted())")
        }
    }

    @Test("C types stay out of other modules' sight")
    func cImportsAreInternal() {
        for file in SourceTree.repository.sources {
            for line in file.lines
            where line.hasPrefix("package import C") || line.hasPrefix("public import C") {
                let name = line.split(separator: " ").last ?? ""
                let isOwnModule = Self.allowed[name] != nil
                #expect(isOwnModule, "\(file.path): \(line) shows a C library to other modules")
            }
        }
    }

    @Test("no Foundation on the data plane")
    func noFoundationOnTheDataPlane() {
        for module in Self.dataPlane {
            #expect(Self.allowed[module]?.contains("Foundation") == false, "\(module) is on the data plane")
        }
    }

    @Test("the rules of modules make no circle")
    func noCircle() {
        var remaining = Self.allowed.mapValues { $0.filter { Self.allowed[$0] != nil } }
        while let free = remaining.first(where: { $0.value.isDisjoint(with: remaining.keys) }) {
            remaining[free.key] = nil
        }
        #expect(remaining.isEmpty, "these import each other: \(remaining.keys.sorted())")
    }
}
