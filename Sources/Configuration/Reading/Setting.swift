// Every key of the file is described once. Sections refuse keys that have no description, the kinds of value
// below read and bound what stands there, and the documentation's reference is printed from the same
// descriptions. A range or a default that is changed here is changed everywhere.

/// One key of the file, in the words of the documentation.
package struct KeyDescription: Sendable {
    /// As it is written in the file.
    package let name: String
    /// What its value is, with unit and range, such as `duration, 1ms to 1m`.
    package let form: String
    /// What is taken when it is left out; nil where it may not be.
    package let standard: String?
    /// What it does, in Markdown.
    package let meaning: String

    /// A key that is read by code of its own.
    ///
    /// - Parameter standard: a sentence or a value; nil for a key that has to be there.
    static func key(_ name: String, _ form: String, default standard: String?, _ meaning: String) -> Self {
        Self(name: name, form: form, standard: standard, meaning: meaning)
    }
}

/// All keys of one mapping.
package struct SectionDescription: Sendable {
    /// Where it stands, such as `upstreams.<name>.health`; empty for the file itself.
    package let path: String
    /// What it is for, in Markdown.
    package let meaning: String
    /// In the order in which the reference has them.
    package let keys: [KeyDescription]

    init(_ path: String, _ meaning: String, _ keys: [KeyDescription]) {
        self.path = path
        self.meaning = meaning
        self.keys = keys
    }

    func knows(_ name: String) -> Bool { keys.contains { $0.name == name } }
}

/// A key whose value is of one of the common kinds.
struct Setting<Result: Sendable>: Sendable {
    let description: KeyDescription
    /// What is taken when the key is left out.
    let standard: Result
    private let read: @Sendable (Value) -> Result?

    private init(
        _ name: String, _ form: String, _ shown: String, _ meaning: String, _ standard: Result,
        _ read: @escaping @Sendable (Value) -> Result?
    ) {
        description = KeyDescription(name: name, form: form, standard: shown, meaning: meaning)
        self.standard = standard
        self.read = read
    }

    /// What the section says, or the default. A value that cannot be read is a problem, and the default too.
    func value(in section: Section?) -> Result {
        section?[description.name].flatMap(read) ?? standard
    }

    /// One of a few words.
    static func choice(
        _ name: String, _ choices: [(String, Result)], default word: String, _ meaning: String
    ) -> Self {
        guard let standard = choices.first(where: { $0.0 == word }) else {
            preconditionFailure("the default of \(name) is one of its words")
        }
        let words = choices.map { "`\($0.0)`" }.joined(separator: ", ")
        return Self(name, words, word, meaning, standard.1) { $0.choice(choices) }
    }
}

extension Setting where Result == Int {
    static func integer(
        _ name: String, in range: ClosedRange<Int>, default standard: Int, _ meaning: String
    ) -> Self {
        Self(name, Form.integer(range), "\(standard)", meaning, standard) { $0.integer(in: range) }
    }

    /// Milliseconds.
    static func duration(
        _ name: String, in range: ClosedRange<Int>, default standard: Int, _ meaning: String
    ) -> Self {
        let shown = Units.text(milliseconds: standard)
        return Self(name, Form.duration(range), shown, meaning, standard) { $0.duration(in: range) }
    }

    /// Whole seconds.
    static func seconds(
        _ name: String, in range: ClosedRange<Int>, default standard: Int, _ meaning: String
    ) -> Self {
        let milliseconds = range.lowerBound * 1_000...range.upperBound * 1_000
        let form = Form.duration(milliseconds) + ", in whole seconds"
        return Self(name, form, Units.text(milliseconds: standard * 1_000), meaning, standard) { value in
            guard let found = value.duration(in: milliseconds) else { return nil }
            guard found.isMultiple(of: 1_000) else {
                value.problem("\(value.written) is not a number of whole seconds")
                return nil
            }
            return found / 1_000
        }
    }

    /// Bytes.
    static func size(
        _ name: String, in range: ClosedRange<Int>, default standard: Int, _ meaning: String
    ) -> Self {
        Self(name, Form.size(range), Units.text(bytes: standard), meaning, standard) { $0.size(in: range) }
    }

    /// A share in millionths.
    static func share(_ name: String, default standard: Int, _ meaning: String) -> Self {
        Self(name, Form.share, Form.text(millionths: standard), meaning, standard) { $0.share() }
    }
}

extension Setting where Result == Int? {
    /// Milliseconds, or nothing.
    static func duration(
        _ name: String, in range: ClosedRange<Int>, default shown: String, _ meaning: String
    ) -> Self {
        Self(name, Form.duration(range), shown, meaning, nil) { $0.duration(in: range) }
    }

    /// Bytes, or nothing.
    static func size(
        _ name: String, in range: ClosedRange<Int>, default shown: String, _ meaning: String
    ) -> Self {
        Self(name, Form.size(range), shown, meaning, nil) { $0.size(in: range) }
    }
}

extension Setting where Result == Bool {
    static func flag(_ name: String, default standard: Bool, _ meaning: String) -> Self {
        Self(name, "`true`, `false`", "\(standard)", meaning, standard) { $0.bool() }
    }
}

/// Kinds of value, in the words of the reference.
private enum Form {
    static let share = "share, 0% to 100%"

    static func integer(_ range: ClosedRange<Int>) -> String { text("whole number", range) { "\($0)" } }
    static func duration(_ range: ClosedRange<Int>) -> String {
        text("duration", range, Units.text(milliseconds:))
    }
    static func size(_ range: ClosedRange<Int>) -> String { text("size", range, Units.text(bytes:)) }

    static func text(millionths: Int) -> String {
        let fraction = "\(millionths % 10_000 + 10_000)".dropFirst()
        var text = "\(millionths / 10_000).\(fraction)"
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
        return text + "%"
    }

    private static func text(_ kind: String, _ range: ClosedRange<Int>, _ show: (Int) -> String) -> String {
        range.upperBound == Int.max
            ? "\(kind), at least \(show(range.lowerBound))"
            : "\(kind), \(show(range.lowerBound)) to \(show(range.upperBound))"
    }
}
