-- The checks of the nginx baseline: what an operator would write by hand for one dialect with keys in memory.
local ffi = require "ffi"
ffi.cdef [[
  const void *EVP_sha256(void);
  unsigned char *HMAC(const void *md, const void *key, int key_len, const char *d, size_t n, unsigned char *out, unsigned int *out_len);
]]
local sha256, out, out_len = ffi.C.EVP_sha256(), ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local keys = {}
gate = {}

function gate.add(id, secret, scopes, addresses)
  keys[id] = { secret = secret, scopes = scopes, addresses = addresses }
end

function gate.refuse(status, code)
  ngx.status = status
  ngx.header["Content-Type"] = "application/problem+json"
  ngx.print('{"status":' .. status .. ',"code":"' .. code .. '"}')
  return ngx.exit(status)
end

function gate.admit()
  local path, method = ngx.var.uri, ngx.req.get_method()
  if path:sub(1, 12) == "/v1/markets/" then return end
  local headers = ngx.req.get_headers()
  local id, signature, timestamp = headers["X-API-Key"], headers["X-Request-Signature"], headers["X-Request-Timestamp"]
  if not (id and signature and timestamp) then return gate.refuse(401, "missing_credentials") end
  local age = ngx.time() - tonumber(timestamp)
  if age > 5 or age < -1 then return gate.refuse(401, "timestamp_out_of_window") end
  local key = keys[id]
  if not key then return gate.refuse(401, "invalid_credentials") end
  local message = method .. "\n" .. path .. "\n" .. timestamp
  if method ~= "GET" then
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if body then message = message .. "\n" .. body end
  end
  ffi.C.HMAC(sha256, key.secret, #key.secret, message, #message, out, out_len)
  if ngx.encode_base64(ffi.string(out, 32)) ~= signature then return gate.refuse(401, "invalid_credentials") end
  if not key.addresses[ngx.var.remote_addr] then return gate.refuse(403, "ip_not_allowed") end
  if not key.scopes[method == "GET" and "read" or "trade"] then return gate.refuse(403, "scope_not_granted") end
  ngx.shared.counters:incr(id .. math.floor(ngx.time() / 60), 1, 0, 120)
  ngx.var.account = id
end
