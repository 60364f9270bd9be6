// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift target: language mode 6, memory safety spelled out, no warning survives.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings)
}

let package = Package(
    name: "gateway",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
    ],
    targets: [
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),

        module("Reactor", ["CLinux"]),
        module("TLS", ["Reactor", "COpenSSL"]),
        module("HTTPWire", ["Reactor"]),
        .systemLibrary(name: "CNghttp2", providers: [.apt(["libnghttp2-dev"])]),
        module("HTTP2", ["Reactor", "HTTPWire", "CNghttp2"]),
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        module("Redis", ["Reactor", "TLS", "CHiredis"]),
        module("Limits"),
        module("Keys"),
        module("Configuration", ["Limits", "Keys", "Reactor", .product(name: "Yams", package: "Yams")]),
        module("KeyManagement", ["Keys", "Limits", "Redis", "TLS", "Reactor", "Configuration"]),
        module(
            "DataPlane",
            ["Reactor", "TLS", "HTTPWire", "HTTP2", "Redis", "Limits", "Keys", "Configuration"]),
        .target(
            name: "Dashboard",
            resources: [.embedInCode("Files")],
            swiftSettings: settings),
        module(
            "Admin",
            [
                "Dashboard", "DataPlane", "KeyManagement", "Configuration", "Keys", "Limits", "HTTPWire",
                "TLS", "Reactor",
            ]),
        .executableTarget(
            name: "gateway",
            dependencies: [
                "Admin", "DataPlane", "KeyManagement", "Configuration", "Keys", "Limits", "Redis", "TLS",
                "HTTPWire", "Reactor",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings),

        .target(
            name: "TestSupport", dependencies: ["Reactor", "TLS", "Limits", "Redis"],
            path: "Tests/TestSupport",
            swiftSettings: settings),
        .target(
            name: "FuzzTargets",
            dependencies: ["HTTPWire", "HTTP2", "Keys", "Configuration", "Reactor"],
            path: "Tests/FuzzTargets", swiftSettings: settings),
        tests("FuzzTests", ["FuzzTargets"]),
        tests("TidyTests", []),
        tests("ReactorTests", ["Reactor"]),
        tests("HTTPWireTests", ["HTTPWire", "Reactor"]),
        tests("HTTP2Tests", ["HTTP2", "HTTPWire", "Reactor"]),
        tests("KeysTests", ["Keys"]),
        tests("TLSTests", ["TLS"]),
        tests("LimitsTests", ["Limits", "TestSupport"]),
        tests("ConfigurationTests", ["Configuration", "Limits"]),
        tests("DataPlaneTests", ["DataPlane", "Configuration", "Keys", "Reactor", "Redis"]),
        tests("RedisTests", ["Redis", "Reactor", "TLS", "TestSupport"]),
        tests(
            "KeyManagementTests",
            ["KeyManagement", "Redis", "Reactor", "Configuration", "Keys", "Limits", "TestSupport"]),
        tests("AdminTests", ["Admin", "Dashboard", "DataPlane", "Reactor"]),
        tests(
            "IntegrationTests", ["TLS", "Reactor", "Limits", "TestSupport"],
            exclude: ["Harness/settable-clock.c", "Harness/slow-names.c"]),
    ]
)
