// The files of the dashboard, inside the program: an operator's machine need not reach any other host, and
// what is served cannot differ from what was built.

/// A file that the admin listener serves as it is.
package struct DashboardFile: Sendable {
    /// Its `Content-Type`.
    package let type: String
    package let bytes: [UInt8]

    /// The file of a path, nil when there is none.
    package init?(path: String) {
        switch path {
        case "/": self.init("text/html; charset=utf-8", PackageResources.index_html)
        case "/icon.svg": self.init("image/svg+xml", PackageResources.icon_svg)
        case "/openapi.json": self.init("application/json", PackageResources.openapi_json)
        case "/assets/dashboard.css": self.init("text/css; charset=utf-8", PackageResources.dashboard_css)
        case "/assets/app.js": self.init(script: PackageResources.app_js)
        case "/assets/account.js": self.init(script: PackageResources.account_js)
        case "/assets/api.js": self.init(script: PackageResources.api_js)
        case "/assets/charts.js": self.init(script: PackageResources.charts_js)
        case "/assets/dom.js": self.init(script: PackageResources.dom_js)
        case "/assets/format.js": self.init(script: PackageResources.format_js)
        case "/assets/keyforms.js": self.init(script: PackageResources.keyforms_js)
        case "/assets/keys.js": self.init(script: PackageResources.keys_js)
        case "/assets/overview.js": self.init(script: PackageResources.overview_js)
        case "/assets/repeat.js": self.init(script: PackageResources.repeat_js)
        default: return nil
        }
    }

    private init(_ type: String, _ bytes: [UInt8]) {
        self.type = type
        self.bytes = bytes
    }

    private init(script: [UInt8]) { self.init("text/javascript; charset=utf-8", script) }
}
