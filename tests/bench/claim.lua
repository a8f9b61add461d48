-- The replay guard of the nginx baseline for trades: one SET NX PX for each signature, on connections that are kept.
local redis = require "nginx.redis"

function gate.claim()
  if ngx.req.get_method() == "GET" then return end
  local store = redis:new()
  store:set_timeout(1000)
  local connected = store:connect(gate.redis)
  local claimed, failure
  if connected then
    claimed, failure = store:set("claim:" .. ngx.var.account .. ":" .. ngx.var.http_x_request_signature, "", "NX", "PX", 15000)
  end
  if not connected or failure then return gate.refuse(503, "replay_guard_unavailable") end
  store:set_keepalive(60000, 1024)
  if claimed == ngx.null then return gate.refuse(409, "replayed_request") end
end
