import KeyManagement
import Keys
import Testing

/// Keys that callers put where logs repeat them.
@Suite("Key mask")
struct KeyMaskTests {
    @Test(
        "a key of whatever characters a credential may have is masked whole",
        arguments: [
            ("/api/sk_live_abcdefgh", "/api/sk_live_…"), ("sk_live_7fa.9c1e.83bb41 x", "sk_live_… x"),
            ("sk_live_ab/cd+ef~gh==", "sk_live_…"), ("\"sk_live_a-b_c-d_e\"", "\"sk_live_…\""),
            ("sk_live_short", "sk_live_short"), ("risk_live_1?", "risk_live_1?"),
        ])
    func masked(_ text: String, _ told: String) throws {
        let format = try #require(KeyFormat(prefixes: ["sk_live_"]))
        let masked = KeyMask(format).mask(Array(text.utf8))
        #expect(String(decoding: masked, as: UTF8.self) == told)
    }
}
