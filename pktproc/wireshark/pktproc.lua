-- pktproc for Wireshark: the process behind every packet as fields to filter by and to show as columns.
--
-- Files that pktproc wrote carry one comment a packet, such as
--   pktproc src.pid=4711 src.name=curl src.match=exact dst.pid=812 dst.name="my server" dst.match=shared dst.holders=812,813 by=netlink
-- From it this post-dissector makes pktproc.src.* and pktproc.dst.* for one end, and pktproc.* for either:
--   pid, name, match, reason, holder, evidence
-- For Wireshark 3.6 to 4.6 (Lua 5.2 to 5.4). A comment that is not pktproc's, or not whole, adds nothing.

local PREFIX = "pktproc "
local LARGEST_PID = 4294967295
local MOST_KEPT = 4096 -- comments; what a busy host talks on at one time
local LONGEST_KEPT = 1024 -- bytes of a comment; longer ones, which are rare, are read anew
local ESCAPES = { ['"'] = 0x22, ["\\"] = 0x5C, ["/"] = 0x2F, b = 0x08, f = 0x0C, n = 0x0A, r = 0x0D, t = 0x09 }
-- What does not show, or changes what else shows: controls, surrogates, zero-width and bidirectional format characters.
local UNPRINTABLE = {
    { 0x00, 0x1F },
    { 0x7F, 0x9F },
    { 0xAD, 0xAD },
    { 0x61C, 0x61C },
    { 0x180E, 0x180E },
    { 0x200B, 0x200F },
    { 0x2028, 0x202E },
    { 0x2060, 0x206F },
    { 0xD800, 0xDFFF },
    { 0xFEFF, 0xFEFF },
    { 0xFFF9, 0xFFFB },
    { 0xE0000, 0xE0FFF },
}
local ENDS = { { key = "src", title = "Source" }, { key = "dst", title = "Destination" } }
local KINDS = {
    { key = "pid", title = "PID", numeric = true },
    { key = "name", title = "name" },
    { key = "match", title = "match" },
    { key = "reason", title = "reason for no process" },
    { key = "holder", title = "holder", numeric = true },
    { key = "evidence", title = "evidence" },
}

-- Wireshark refuses a second protocol of the same name: this file may be installed and named on a command line as well.
local fresh, pktproc = pcall(Proto, "pktproc", "Processes behind the packet")
if not fresh then
    return
end
if set_plugin_info then
    set_plugin_info({ version = "1.0.0", description = "Fields for the process behind every packet, from pktproc" })
end

local comments = Field.new("frame.comment")

local function make_field(abbreviation, title, numeric)
    if numeric then
        return ProtoField.uint32(abbreviation, title, base.DEC)
    end
    return ProtoField.string(abbreviation, title)
end

local fields = {}
for _, kind in ipairs(KINDS) do
    local title = kind.title:sub(1, 1):upper() .. kind.title:sub(2)
    fields[kind.key] = make_field("pktproc." .. kind.key, title, kind.numeric)
    for _, side in ipairs(ENDS) do
        local path = side.key .. "." .. kind.key
        fields[path] = make_field("pktproc." .. path, side.title .. " " .. kind.title, kind.numeric)
    end
end
pktproc.fields = fields

local function encode(code)
    if code < 0x80 then
        return string.char(code)
    end
    local tail, lead, room = "", 0xC0, 0x20
    repeat
        tail = string.char(0x80 + code % 0x40) .. tail
        code = math.floor(code / 0x40)
        if code < room then
            return string.char(lead + code) .. tail
        end
        lead, room = lead + room, math.floor(room / 2)
    until false
end

-- Return a code point in UTF-8, or spelled out as pktproc does elsewhere: names are made by anybody.
local function show(code)
    for _, range in ipairs(UNPRINTABLE) do
        if code >= range[1] and code <= range[2] then
            return string.format(code < 0x80 and "\\x%02x" or code < 0x10000 and "\\u%04x" or "\\U%08x", code)
        end
    end
    return encode(code)
end

-- Return the code point of the digits of a \u escape and the position behind it; nil for what is none.
local function code_point(text, position)
    local digits = text:match("^%x%x%x%x", position)
    if not digits then
        return nil
    end
    local code = tonumber(digits, 16)
    local low = code >= 0xD800 and code < 0xDC00 and text:match("^\\u([dD][c-fC-F]%x%x)", position + 4)
    if low then
        return 0x10000 + (code - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00, position + 10
    end
    return code, position + 4
end

-- Return the value of the JSON string whose first quote is before `position`, and the position behind it.
local function json_string(text, position)
    local pieces = {}
    while true do
        local plain, mark = text:match('^([^"\\]*)(["\\])', position)
        if not plain then
            return nil
        end
        pieces[#pieces + 1] = plain
        position = position + #plain + 1
        if mark == '"' then
            return table.concat(pieces), position
        end
        local letter = text:sub(position, position)
        position = position + 1
        if letter == "u" then
            local code
            code, position = code_point(text, position)
            if not code then
                return nil
            end
            pieces[#pieces + 1] = show(code)
        elseif ESCAPES[letter] then
            pieces[#pieces + 1] = show(ESCAPES[letter])
        else
            return nil
        end
    end
end

-- Return the value at `position` and the position behind it; nil for what is none.
local function read_value(text, position)
    if text:sub(position, position) == '"' then
        return json_string(text, position + 1)
    end
    local value = text:match("^[%w._+:/@,-]+", position)
    return value, value and position + #value
end

-- Say whether the value of a key is what that key takes: pids are whole numbers.
local function is_sound(key, value)
    if not key:find("%.pid$") and not key:find("%.holders$") then
        return true
    end
    for pid in value:gmatch("[^,]+") do
        if #pid > 10 or pid:find("%D") or tonumber(pid) > LARGEST_PID then
            return false
        end
    end
    return value:find("%d") and (key:find("%.holders$") or not value:find(","))
end

-- Return the values of a comment by key; nil for a comment that is not pktproc's, or not whole.
local function parse(comment)
    if comment:sub(1, #PREFIX) ~= PREFIX or comment:find("[^\32-\126]") then
        return nil
    end
    local values, position = {}, #PREFIX
    while position <= #comment do
        local key = comment:match("^ ([%w.]+)=", position)
        if not key then
            return nil
        end
        values[key], position = read_value(comment, position + #key + 2)
        if not position or not is_sound(key, values[key]) then
            return nil
        end
    end
    return values
end

-- Return the values of one end by kind, each a list.
local function answers(values, side)
    local found = { holder = {}, evidence = {} }
    for _, key in ipairs({ "pid", "name", "match", "reason" }) do
        found[key] = { values[side .. "." .. key] }
    end
    for holder in (values[side .. ".holders"] or ""):gmatch("[^,]+") do
        table.insert(found.holder, holder)
    end
    if #found.pid + #found.reason > 0 then
        found.evidence = { values[side .. ".by"] or values.by }
    end
    return found
end

local function summary(found)
    if found.pid[1] then
        return (found.name[1] or "") .. "[" .. found.pid[1] .. "]"
    end
    return found.reason[1] and "?" .. found.reason[1]
end

local function add_items(items, side, found)
    for _, kind in ipairs(KINDS) do
        for _, value in ipairs(found[kind.key]) do
            local typed = kind.numeric and tonumber(value) or value
            table.insert(items, { field = fields[side .. "." .. kind.key], value = typed })
            table.insert(items, { field = fields[kind.key], value = typed, hidden = true })
        end
    end
end

-- Return what a comment adds to the tree: items in order, and the text above them; nil for nothing.
local function prepare(comment)
    local values, items, texts = parse(comment), {}, {}
    for _, side in ipairs(values and ENDS or {}) do
        local found = answers(values, side.key)
        local text = summary(found)
        if text then
            add_items(items, side.key, found)
            table.insert(texts, side.title .. " " .. text)
        end
    end
    return #texts > 0 and { items = items, text = "Processes: " .. table.concat(texts, ", ") } or nil
end

-- Comments repeat in every packet of a flow.
local prepared, kept = {}, 0

local function prepared_once(comment)
    if #comment > LONGEST_KEPT then
        return prepare(comment)
    end
    local found = prepared[comment]
    if found == nil then
        if kept == MOST_KEPT then
            prepared, kept = {}, 0
        end
        found = prepare(comment) or false
        prepared[comment], kept = found, kept + 1
    end
    return found
end

function pktproc.dissector(_, _, tree)
    for _, comment in ipairs({ comments() }) do
        local found = prepared_once(comment.value)
        if found then
            local subtree = tree:add(pktproc)
            subtree:set_generated()
            subtree:set_text(found.text)
            for _, item in ipairs(found.items) do
                if subtree:referenced(item.field) then
                    local added = subtree:add(item.field, item.value)
                    added:set_generated()
                    if item.hidden then
                        added:set_hidden()
                    end
                end
            end
        end
    end
end

register_postdissector(pktproc)
