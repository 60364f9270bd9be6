package import Reactor

/// Writes commands in Redis's protocol straight into a block, without formatting and without allocation.
package enum CommandWriter {
    /// Begins a command of `arguments` arguments, its name included.
    @inline(__always)
    package static func begin(_ arguments: Int, into writer: inout ByteWriter) {
        writer.append(byte: 0x2A)
        writer.append(decimal: Int64(arguments))
        writer.append("\r\n")
    }

    /// An argument of any bytes.
    package static func append(_ bytes: Span<UInt8>, into writer: inout ByteWriter) {
        writer.append(byte: 0x24)
        writer.append(decimal: Int64(bytes.count))
        writer.append("\r\n")
        writer.append(bytes)
        writer.append("\r\n")
    }

    /// An argument that is known when the program is built.
    package static func append(_ text: StaticString, into writer: inout ByteWriter) {
        writer.append(byte: 0x24)
        writer.append(decimal: Int64(text.utf8CodeUnitCount))
        writer.append("\r\n")
        writer.append(text)
        writer.append("\r\n")
    }

    /// A number in decimal digits.
    package static func append(_ value: Int64, into writer: inout ByteWriter) {
        var digits = value < 0 ? 2 : 1
        var rest = value.magnitude
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        writer.append(byte: 0x24)
        writer.append(decimal: Int64(digits))
        writer.append("\r\n")
        writer.append(decimal: value)
        writer.append("\r\n")
    }

    /// A whole command, for slow paths.
    package static func bytes(_ arguments: [[UInt8]]) -> [UInt8] {
        var result = Array("*\(arguments.count)\r\n".utf8)
        // Long commands have arguments of one length.
        var length: (count: Int, bytes: [UInt8]) = (-1, [])
        for argument in arguments {
            if argument.count != length.count {
                length = (argument.count, Array("$\(argument.count)\r\n".utf8))
            }
            result += length.bytes
            result += argument
            result += [0x0D, 0x0A]
        }
        return result
    }

    /// A whole command of texts, for slow paths.
    package static func bytes(_ arguments: [String]) -> [UInt8] { bytes(arguments.map { Array($0.utf8) }) }
}
