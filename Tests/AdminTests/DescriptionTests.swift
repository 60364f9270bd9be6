import Dashboard
import Testing

@testable import Admin

/// `/openapi.json` against what the listener really takes.
@Suite("API description")
struct DescriptionTests {
    private func members(_ value: JSONValue?) -> [String: JSONValue] {
        if case .object(let members)? = value { return members }
        return [:]
    }

    private func text(_ value: JSONValue?) -> String? {
        if case .string(let text)? = value { return text }
        return nil
    }

    private func elements(_ value: JSONValue?) -> [JSONValue] {
        if case .array(let elements)? = value { return elements }
        return []
    }

    @Test("every path, method, parameter and member of a body is described, and no other")
    func complete() throws {
        let file = try #require(DashboardFile(path: "/openapi.json"))
        // Deeper than requests may be.
        let document = members(try JSONReader.read(file.bytes, depthMax: 64))
        let schemas = members(members(document["components"])["schemas"])
        var described: Set<String> = []
        for (path, item) in members(document["paths"]) {
            for (method, operation) in members(item) where method != "parameters" {
                described.insert("\(method.uppercased()) \(path)")
                let endpoint = Endpoint.allCases.first {
                    $0.template == path && $0.method == method.uppercased()
                }
                guard let endpoint else {
                    Issue.record("\(method) \(path) is described, but not there")
                    continue
                }
                let parameters = elements(members(operation)["parameters"]).map(members)
                    .map {
                        text($0["$ref"]) == nil ? $0 : members(parameter(text($0["$ref"]) ?? "", document))
                    }
                let query = parameters.filter { text($0["in"]) == "query" }.compactMap { text($0["name"]) }
                #expect(Set(query) == endpoint.parameters, "\(method) \(path)")
                let content = members(members(members(operation)["requestBody"])["content"])
                var schema = members(members(content["application/json"])["schema"])
                if let name = text(schema["$ref"])?.split(separator: "/").last {
                    schema = members(schemas[String(name)])
                }
                #expect(
                    Set(members(schema["properties"]).keys) == endpoint.members ?? [], "\(method) \(path)")
            }
        }
        #expect(described == Set(Endpoint.allCases.map { "\($0.method) \($0.template)" }))
    }

    private func parameter(_ reference: String, _ document: [String: JSONValue]) -> JSONValue? {
        let name = reference.split(separator: "/").last.map(String.init) ?? ""
        return members(members(document["components"])["parameters"])[name]
    }
}
