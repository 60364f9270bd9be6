import Testing

/// Where pointers may stand: the modules that wrap C, and the few files of the data plane that hold slots and
/// buffers. Everything else is bounds-checked code.
@Suite("Unsafe code")
struct UnsafeTests {
    /// Modules whose purpose is an edge to C.
    static let modules: Set<Substring> = ["Reactor", "TLS", "Redis", "HTTP2"]

    /// Files elsewhere that may hold pointers, each with its reason.
    static let files: [String: String] = [
        "Sources/DataPlane/Observation/LazyMemory.swift": "counters live in lazily mapped memory",
        "Sources/Keys/Storage.swift": "tables of fixed size without reference counting",
        "Sources/DataPlane/Observation/CounterBank.swift": "hands out addresses of single counters",
    ]

    static let marks = ["unsafe", "@unsafe", "Unmanaged", "OpaquePointer"]

    @Test("pointers stay at slots, buffers and the C edges")
    func pointersStayAtTheEdges() {
        for file in SourceTree.repository.sources {
            guard let module = file.module, !Self.modules.contains(module) else { continue }
            guard Self.files[file.path] == nil else { continue }
            for number in Self.linesWithPointers(of: file) {
                Issue.record(
                    "\(file.path):\(number): unsafe code outside the modules and files that may hold it")
            }
        }
    }

    @Test("the list of files that may hold pointers is not stale")
    func listIsNotStale() {
        for (path, _) in Self.files {
            let file = SourceTree.repository.files.first { $0.path == path }
            #expect(file != nil, "\(path) is gone: take it off the list")
            if let file {
                #expect(
                    !Self.linesWithPointers(of: file).isEmpty,
                    "\(path) holds no pointer: take it off the list")
            }
        }
    }

    @Test("at most one file in eight holds pointers outside the C edges")
    func fewFilesHoldPointers() {
        let outside = SourceTree.repository.sources.filter { file in
            file.module.map { !Self.modules.contains($0) } ?? false
        }
        let holding = outside.filter { !Self.linesWithPointers(of: $0).isEmpty }
        #expect(holding.count * 8 <= outside.count + 7, "\(holding.count) of \(outside.count) files")
    }

    private static func linesWithPointers(of file: SourceTree.File) -> [Int] {
        file.lines.enumerated().compactMap { index, line in
            let code = SourceTree.File.withoutComment(line)
            guard code.contains("nsafe") || code.contains("Unmanaged") || code.contains("OpaquePointer")
            else {
                return nil
            }
            let words = code.split { !$0.isLetter && !$0.isNumber && $0 != "_" && $0 != "@" }
            let holds = words.contains { word in
                Self.marks.contains(String(word)) || word.hasPrefix("Unsafe")
            }
            return holds && !code.contains("nonisolated(unsafe)") ? index + 1 : nil
        }
    }
}
