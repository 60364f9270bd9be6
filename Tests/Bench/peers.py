"""Configurations of the gateway and of those it is compared with, each as fast as its manual allows."""

import hashlib
import json
import os

KEYS = [f"sk_live_bench{number:06d}" for number in range(1000)]
# A key whose account has used up its limit after one call.
LIMITED = "sk_live_bench_limited"


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def gateway(folder, port, admin, upstream, redis=None, limit="1000000000/minute", grpc=None):
    more = f'  grpc: {{ endpoints: ["http://127.0.0.1:{grpc}"], http2: true }}\n' if grpc else ""
    static = "\n".join(
        f'    - {{ sha256: "{hashlib.sha256(key.encode()).hexdigest()}", account: a{number},'
        f' tier: {"few" if key == LIMITED else "bench"}, scopes: ["bench:read"] }}'
        for number, key in enumerate(KEYS + [LIMITED])
    )
    keys = "" if redis else f"keys:\n  static:\n{static}\n"
    store = f"redis://127.0.0.1:{redis}/0" if redis else "memory:"
    return write(folder, f"gateway-{port}.conf", f"""
listen:
  https:
    address: "127.0.0.1:{port}"
    certificates: [{{ chain: "{folder}/certificate.pem", private_key: "{folder}/key.pem" }}]
admin: {{ address: "127.0.0.1:{admin}" }}
store: {{ url: "{store}" }}
{keys}tiers:
  bench: {{ limits: ["{limit}"] }}
  few: {{ limits: ["1/hour"] }}
upstreams:
  main: {{ endpoints: ["http://127.0.0.1:{upstream}"], idle_connections: 1024 }}
{more}routes:
  - {{ path: /**, scopes: ["bench:read"], upstream: {"grpc" if grpc else "main"} }}
limits: {{ connections: 20000, failed_authentications: off }}
access_log: {{ path: off }}
timeouts: {{ drain_delay: 0ms, drain: 1s, idle: 10m }}
workers: 1
""")


def nginx(folder, name, port, upstream, http="", server=""):
    return write(folder, f"{name}.conf", f"""
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.err error;
daemon off;
LOAD_MODULES
worker_rlimit_nofile 40000;
events {{ worker_connections 32000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  {http}
  upstream main {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    http2_max_concurrent_streams 256;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3;
    location / {{
      {server}
      proxy_pass http://main;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
""".replace("LOAD_MODULES", "" if "lua" not in name else
            "load_module modules/ndk_http_module.so;\nload_module modules/ngx_http_lua_module.so;"))


def nginx_grpc(folder, port, upstream):
    return write(folder, "nginx-grpc.conf", f"""
worker_processes 1;
pid {folder}/nginx-grpc.pid;
error_log {folder}/nginx-grpc.err error;
daemon off;
worker_rlimit_nofile 40000;
events {{ worker_connections 32000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  upstream main {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    http2_max_concurrent_streams 256;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3;
    location / {{ grpc_pass grpc://main; }}
  }}
}}
""")


def nginx_limit(folder, port, upstream):
    entries = "\n".join(f'    "Bearer {key}" a{number};' for number, key in enumerate(KEYS + [LIMITED]))
    http = f"""
  map_hash_max_size 8192; map_hash_bucket_size 128;
  map $http_authorization $account {{
    default "";
{entries}
  }}
  map $account $few {{
    default "";
    a1000 a1000;
  }}
  limit_req_zone $account zone=accounts:10m rate=1000000r/s;
  limit_req_zone $few zone=few:1m rate=1r/m;
  limit_req_status 429;"""
    server = """
      if ($account = "") { return 401; }
      limit_req zone=few;
      limit_req zone=accounts burst=1000000 nodelay;
      proxy_set_header X-Account $account;"""
    return nginx(folder, "nginx-limit", port, upstream, http, server)


def nginx_lua(folder, port, upstream, redis, script):
    """The gateway's job in Lua: key record, scope and exact window by one EVALSHA a call on a kept-alive connection;
    who calls is told to the upstream, and what is left to the caller. No client library: bare sockets are faster."""
    server = """
      access_by_lua_block { gate() }"""
    http = f"""
  init_by_lua_block {{
    local header = "*4\\r\\n$7\\r\\nEVALSHA\\r\\n$40\\r\\n{script}\\r\\n$1\\r\\n1\\r\\n$"
    local function line(sock)
      local text = sock:receive("*l")
      return text and text:sub(2)
    end
    local function bulk(sock)
      local count = tonumber(line(sock))
      return count and count >= 0 and sock:receive(count + 2):sub(1, count) or nil
    end
    function gate()
      local key = ngx.var.http_authorization
      local token = key and key:match("^Bearer ([%w_-]+)$")
      if not token then return ngx.exit(401) end
      local digest = ngx.encode_base64(ngx.sha1_bin(token))
      local sock = ngx.socket.tcp()
      sock:settimeout(1000)
      if not sock:connect("127.0.0.1", {redis}) then return ngx.exit(503) end
      sock:send({{header, #digest, "\\r\\n", digest, "\\r\\n"}})
      local count = tonumber(line(sock))
      if not count then return ngx.exit(503) end
      if count ~= 5 then sock:setkeepalive(60000, 1024) return ngx.exit(401) end
      local account, tier, scopes = bulk(sock), bulk(sock), bulk(sock)
      local left, reset = tonumber(line(sock)), tonumber(line(sock))
      sock:setkeepalive(60000, 1024)
      if not reset then return ngx.exit(503) end
      if not (" " .. scopes .. " "):find(" bench:read ", 1, true) then return ngx.exit(403) end
      ngx.header["RateLimit-Policy"] = '"' .. tier .. '";q=1000000000;w=60'
      ngx.header["RateLimit"] = '"' .. tier .. '";r=' .. left .. ";t=" .. reset
      if left < 0 then
        ngx.header["Retry-After"] = reset
        return ngx.exit(429)
      end
      ngx.req.clear_header("Authorization")
      ngx.req.set_header("X-Account", account)
      ngx.req.set_header("X-Tier", tier)
      ngx.req.set_header("X-Scopes", scopes)
    end
  }}"""
    return nginx(folder, "nginx-lua", port, upstream, http, server)


LUA_SCRIPT = (
    "local v=redis.call('HMGET','bench:key:'..KEYS[1],'account','tier','scopes') if not v[1] then return {} end "
    "local w='bench:limit:'..v[1] local t=redis.call('TIME') local now=t[1]*1000000+t[2] "
    "local n=redis.call('LLEN',w) local h=redis.call('LINDEX',w,0) "
    "while h and tonumber(h)<now-60000000 do redis.call('LPOP',w) n=n-1 h=redis.call('LINDEX',w,0) end "
    "local reset=math.ceil(((h and tonumber(h) or now)+60000000-now)/1000000) "
    "if n>=1000000000 then return {v[1],v[2],v[3],-1,reset} end "
    "redis.call('RPUSH',w,string.format('%.0f',now)) redis.call('PEXPIRE',w,61000) "
    "return {v[1],v[2],v[3],1000000000-n-1,reset}"
)


def haproxy(folder, port, upstream, guarded):
    keys = write(folder, "haproxy.map", "\n".join(
        f"{hashlib.sha256(key.encode()).hexdigest().upper()} a{number}"
        for number, key in enumerate(KEYS + [LIMITED])) + "\n")
    guard = f"""
  stick-table type string len 32 size 100k expire 60s store http_req_rate(60s)
  http-request set-var(txn.key) req.hdr(authorization),regsub("^Bearer ","")
  http-request set-var(txn.account) var(txn.key),sha2(256),hex,map_str({keys})
  http-request deny deny_status 401 unless {{ var(txn.account) -m found }}
  http-request track-sc0 var(txn.account)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
  http-request deny deny_status 429 if {{ var(txn.account) -m str a1000 }} {{ sc_http_req_rate(0) gt 1 }}
  http-request set-header X-Account %[var(txn.account)]
  http-request del-header authorization
  http-response set-header RateLimit-Policy "\\"bench\\";q=1000000000;w=60\"""" if guarded else ""
    name = "haproxy-guarded" if guarded else "haproxy"
    write(folder, "haproxy.pem", open(f"{folder}/certificate.pem").read() + open(f"{folder}/key.pem").read())
    return write(folder, f"{name}.cfg", f"""
global
  nbthread 1
  maxconn 9500
  tune.ssl.default-dh-param 2048
  tune.h2.max-concurrent-streams 256
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-keep-alive
  http-reuse always
frontend main
  bind 127.0.0.1:{port} ssl crt {folder}/haproxy.pem ssl-min-ver TLSv1.3 alpn h2,http/1.1{guard}
  default_backend upstream
backend upstream
  server one 127.0.0.1:{upstream} pool-max-conn 1024
""")


def envoy(folder, port, upstream):
    """The API-key filter, then a local rate limit; JSON, which Envoy reads as it reads YAML."""
    extensions = "type.googleapis.com/envoy.extensions"
    bucket = {"max_tokens": 1000000000, "tokens_per_fill": 1000000000, "fill_interval": "60s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    filters = [
        ("api_key_auth", "filters.http.api_key_auth.v3.ApiKeyAuth", {
            "credentials": [{"key": key, "client": f"a{number}"} for number, key in enumerate(KEYS)],
            "key_sources": [{"header": "Authorization"}],
            "forwarding": {"header": "X-Account", "hide_credentials": True}}),
        ("local_ratelimit", "filters.http.local_ratelimit.v3.LocalRateLimit", {
            "stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": always, "filter_enforced": always}),
        ("router", "filters.http.router.v3.Router", {"suppress_envoy_headers": True}),
    ]
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main", "codec_type": "HTTP1", "generate_request_id": False,
        "http_filters": [
            {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{extensions}.{kind}", **settings}}
            for name, kind, settings in filters],
        "route_config": {"virtual_hosts": [{
            "name": "main", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "main", "timeout": "60s"}}]}]},
    }
    secure = {
        "@type": f"{extensions}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"filename": f"{folder}/certificate.pem"},
                "private_key": {"filename": f"{folder}/key.pem"}}]},
    }

    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    unbounded = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    return write(folder, "envoy.json", json.dumps({"static_resources": {
        "listeners": [{
            "name": "main", "address": address(port),
            "filter_chains": [{
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": secure},
                "filters": [{
                    "name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{
            "name": "main", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [unbounded]},
            "load_assignment": {"cluster_name": "main", "endpoints": [{
                "lb_endpoints": [{"endpoint": {"address": address(int(upstream))}}]}]}}]}}))
