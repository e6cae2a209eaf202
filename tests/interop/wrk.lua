-- For wrk: asks for chunks of a file in no order. Arguments: the path before the number, what
-- stands behind it, and how many there are.
function init(arguments)
    before, behind, count = arguments[1], arguments[2], tonumber(arguments[3])
    if behind == "-" then behind = "" end
    math.randomseed(42)
end

function request()
    return wrk.format("GET", before .. math.random(0, count - 1) .. behind)
end

-- One line that a program can read, whatever wrk prints.
function done(summary, latency)
    local errors = summary.errors
    print(string.format("figures: requests %d us %d bytes %d errors %d p99_us %d",
        summary.requests, summary.duration, summary.bytes,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(99)))
end
