import Testing

@testable import Admin

@Suite("JSON of requests")
struct JSONReaderTests {
    private func read(_ text: String) throws(JSONProblem) -> JSONValue {
        try JSONReader.read(Array(text.utf8))
    }

    @Test("values are what they say")
    func values() throws {
        #expect(
            try read(#"{"a":[1,-2,1.5,1e2,true,false,null,"x"]}"#)
                == .object([
                    "a": .array([
                        .integer(1), .integer(-2), .number(1.5), .integer(100), .bool(true), .bool(false),
                        .null,
                        .string("x"),
                    ])
                ]))
        #expect(try read(#" "A\n\u00e9\ud83d\ude00\/" "#) == .string("A\né😀/"))
        #expect(try read("9223372036854775807") == .integer(.max))
        #expect(try read("18446744073709551616") == .number(18_446_744_073_709_551_616))
    }

    @Test(
        "what is no JSON is refused",
        arguments: [
            "", " ", "{", "{\"a\"}", "{\"a\":1,}", "[1,]", "[1 2]", "01", "1.", "1e", "-", "+1", "nul", "tru",
            "\"", "\"\u{1}\"", #""\x""#, #""\u12""#, #""\ud800""#, #""\ud800\u0041""#, #""\udc00""#, "1 2",
            "{\"a\":1,\"a\":2}", "1e999", "{1:2}",
            String(repeating: "[", count: 9) + String(repeating: "]", count: 9),
        ])
    func refused(_ text: String) {
        #expect(throws: JSONProblem.self) { try read(text) }
    }

    @Test("bytes that are no text are refused")
    func bytes() {
        #expect(throws: JSONProblem.self) { try JSONReader.read([0x22, 0xFF, 0x22]) }
    }

    @Test("what is written can be read")
    func written() throws {
        var json = JSONWriter()
        json.object(nil) { json in
            json.string("quote\"", "tab\t\u{1}")
            json.integer("n", -5)
            json.decimal("d", -0.25)
            json.null("nothing")
            json.array("list") { json in
                json.bool(nil, true)
                json.object(nil) { _ in }
            }
        }
        #expect(
            try read(json.text)
                == .object([
                    "quote\"": .string("tab\t\u{1}"), "n": .integer(-5), "d": .number(-0.25),
                    "nothing": .null,
                    "list": .array([.bool(true), .object([:])]),
                ]))
    }
}
