import FuzzTargets
import Glibc

// The entry that libFuzzer calls. `FUZZ_TARGET` names the reader that is fuzzed.

private let target: FuzzTarget = {
    guard let name = unsafe getenv("FUZZ_TARGET"),
        let target = unsafe FuzzTarget(rawValue: String(cString: name))
    else { preconditionFailure("FUZZ_TARGET is one of \(FuzzTarget.allCases.map(\.rawValue))") }
    return target
}()

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    do {
        try target.run(bytes)
    } catch {
        var text = error.description + "\n"
        text.withUTF8 { bytes in _ = unsafe write(2, bytes.baseAddress, bytes.count) }
        preconditionFailure("a check has failed")
    }
    return 0
}
