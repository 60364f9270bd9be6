import Redis
import Testing

@testable import DataPlane

@Suite("Generations of the store")
struct StoreGenerationsTests {
    private func history(_ process: String, _ identifier: String = "", _ former: String = "") -> StoreHistory
    {
        var history = StoreHistory()
        (history.process, history.identifier, history.former) = (process, identifier, former)
        return history
    }

    @Test("another process at the only master is a loss, be it a former one; the same process is none")
    func only() {
        let generations = StoreGenerations()
        #expect(!generations.note(history("p", "a"), at: "1", isOnly: true))
        // Its first replica has come.
        #expect(!generations.note(history("p", "b"), at: "1", isOnly: true))
        #expect(generations.generation == 0 && generations.latestMicroseconds == 0)
        #expect(generations.note(history("q", "c", "b"), at: "2", isOnly: true))
        // The next worker reaches the same master.
        #expect(!generations.note(history("q", "c", "b"), at: "2", isOnly: true))
        #expect(generations.generation == 1 && generations.latestMicroseconds > 0)
        #expect(generations.note(history("p", "d", "c"), at: "1", isOnly: true))
        #expect(generations.note(history("r"), at: "1", isOnly: true))
        #expect(generations.generation == 3)
    }

    @Test("a master that a cluster has gained is no loss; one that took over or began anew is")
    func cluster() {
        let generations = StoreGenerations()
        for node in ["a", "b", "c"] {
            #expect(!generations.note(history("p" + node, node), at: node, isOnly: false))
        }
        #expect(!generations.note(history("pd", "d"), at: "d", isOnly: false))
        #expect(generations.note(history("pe", "e", "a"), at: "e", isOnly: false))
        #expect(generations.note(history("pf", "f"), at: "b", isOnly: false))
        #expect(generations.generation == 2)
        // A worker that met the successor by way of a redirection does not know what the next one knows.
        #expect(!generations.note(history("pg", "g", "x"), at: "g", isOnly: false))
        #expect(generations.note(history("pg", "g", "x"), at: "g", isOnly: false, isSuccessor: true))
        #expect(!generations.note(history("pg", "g", "x"), at: "g", isOnly: false, isSuccessor: true))
        #expect(generations.generation == 3)
    }

    @Test("a server that says nothing of itself is never a loss")
    func silent() {
        let generations = StoreGenerations()
        for _ in 0..<3 { #expect(!generations.note(StoreHistory(), at: "1", isOnly: true)) }
        #expect(!generations.note(history("p", "a"), at: "1", isOnly: true))
    }
}
