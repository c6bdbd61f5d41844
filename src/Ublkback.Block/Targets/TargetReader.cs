namespace Ublkback.Block;

/// <summary>Reads the grammar of <see cref="BlockTarget"/>, one method a rule.</summary>
internal sealed class TargetReader(string text)
{
    // What libxl and old configurations put before a path, or (backendtype=tap) before another scheme.
    private static readonly string[] RawPrefixes = ["tap:aio:", "aio:", "file:", "phy:"];

    // Between a scheme and its address, as in nbd+unix:///?socket=/path: what stands before is not a hook.
    private static readonly string[] Transports = ["+unix:", "+tcp:"];

    private string _rest = "";

    public BlockTarget Read()
    {
        _rest = text;
        if (text.Length == 0)
            throw new TargetException(
                "no target given", "say which file or device to serve, as in target=/var/lib/xen/images/disk.img");
        if (text.Length > BlockTarget.MaxLength)
            throw new TargetException($"the target is longer than {BlockTarget.MaxLength} characters");
        if (text.Any(char.IsControl))
            throw new TargetException("the target has a control character in it");

        // A prefix of libxl's stands before everything, hooks included; another may stand before the image.
        SkipRawPrefix();
        List<HookTarget> hooks = [];
        while (StartsWithHook(out int end))
            hooks.Add(ReadHook(end));
        return ReadImage(hooks);
    }

    /// <summary>Reads a hook that nothing follows.</summary>
    public HookTarget ReadHookAlone()
    {
        if (text.Any(char.IsControl))
            throw new TargetException("the hook has a control character in it");
        _rest = text + "+";
        if (!StartsWithHook(out int end) || end != text.Length)
            throw new TargetException($"'{text}' is not a hook", "write name(key=value,…)");
        return ReadHook(end);
    }

    private bool SkipRawPrefix()
    {
        foreach (string prefix in RawPrefixes)
        {
            if (!_rest.StartsWith(prefix, StringComparison.Ordinal)) continue;
            _rest = _rest[prefix.Length..];
            return true;
        }

        return false;
    }

    // A hook is a name, perhaps arguments, and a plus; a path or a scheme's colon or a query ends the search.
    private bool StartsWithHook(out int end)
    {
        end = NameLength(_rest);
        if (end == 0) return false;
        if (end < _rest.Length && _rest[end] == '(')
        {
            int close = _rest.IndexOf(')', end);
            if (close < 0)
                throw new TargetException(
                    $"the arguments of {_rest[..end]} in target {text} have no closing parenthesis");
            end = close + 1;
        }

        return end < _rest.Length && _rest[end] == '+' && TransportLength(end) == 0;
    }

    private int TransportLength(int start)
    {
        string rest = _rest[start..];
        return Transports.FirstOrDefault(word => rest.StartsWith(word, StringComparison.Ordinal))?.Length - 1 ?? 0;
    }

    private HookTarget ReadHook(int end)
    {
        string hook = _rest[..end];
        _rest = _rest[(end + 1)..];
        int open = hook.IndexOf('(', StringComparison.Ordinal);
        return open < 0
            ? new HookTarget(hook, ReadPairs("", ','))
            : new HookTarget(hook[..open], ReadPairs(hook[(open + 1)..^1], ','));
    }

    private BlockTarget ReadImage(List<HookTarget> hooks)
    {
        bool raw = SkipRawPrefix();
        string scheme = BlockTarget.RawScheme;
        if (!_rest.StartsWith('/'))
        {
            int name = NameLength(_rest);
            name += name > 0 ? TransportLength(name) : 0;
            if (name > 0 && name < _rest.Length && _rest[name] == ':')
            {
                scheme = _rest[..name];
                _rest = _rest[(name + 1)..];
            }
            else if (_rest.Length == 0)
            {
                throw new TargetException($"target {text} names no file or device");
            }
            else
            {
                throw raw || name == 0 || !_rest.Contains('(', StringComparison.Ordinal)
                    ? new TargetException(
                        $"target {text} is not an absolute path", "begin it with / or a scheme such as raw:")
                    : new TargetException(
                        $"target {text} ends in a hook", $"add + and the image, as in {_rest}+/path/disk.img");
            }
        }

        // Options may follow a plain path too, so a question mark cannot be a part of a name.
        int query = _rest.LastIndexOf('?');
        string location = query < 0 ? _rest : _rest[..query];
        if (location.Length == 0)
            throw new TargetException($"target {text} names no file or device");
        return new BlockTarget(hooks, scheme, location, ReadPairs(query < 0 ? "" : _rest[(query + 1)..], '&'));
    }

    private Dictionary<string, string> ReadPairs(string pairs, char separator)
    {
        Dictionary<string, string> result = [];
        if (pairs.Length == 0) return result;
        foreach (string pair in pairs.Split(separator))
        {
            int equals = pair.IndexOf('=', StringComparison.Ordinal);
            if (equals <= 0)
                throw new TargetException($"'{pair}' in target {text} is not of the form key=value");
            if (!result.TryAdd(pair[..equals], pair[(equals + 1)..]))
                throw new TargetException($"{pair[..equals]} is given twice in target {text}");
        }

        return result;
    }

    private static int NameLength(string text)
    {
        int length = 0;
        while (length < text.Length && (char.IsAsciiLetterOrDigit(text[length]) || text[length] is '-' or '_'))
            length++;
        return length;
    }
}
