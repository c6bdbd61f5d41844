using System.Globalization;
using Ublkback.Block;

namespace Ublkback.Hooks.Faults;

/// <summary>
/// Which requests a rule means: <c>op=read|write|flush|discard</c> and <c>sectors=FIRST-LAST</c>, in units of 512
/// bytes. Without an argument, all.
/// </summary>
internal sealed class RequestFilter
{
    private readonly BlockOperation? _operation;
    private readonly ulong _first;
    private readonly ulong _last = ulong.MaxValue;

    /// <exception cref="TargetException">The arguments are not right.</exception>
    public RequestFilter(HookTarget target)
    {
        _operation = target.GetChoice("op", "any", "read", "write", "flush", "discard") switch
        {
            "read" => BlockOperation.Read,
            "write" => BlockOperation.Write,
            "flush" => BlockOperation.Flush,
            "discard" => BlockOperation.Discard,
            _ => null,
        };
        if (target.Get("sectors") is string range) (_first, _last) = ParseRange(range);
    }

    /// <summary>Whether a request is meant; of a range, one that touches it.</summary>
    public bool Matches(BlockRequest request)
    {
        if (_operation is BlockOperation operation && request.Operation != operation) return false;
        if (_last == ulong.MaxValue) return true;
        return request.SectorCount > 0 && request.Sector <= _last
            && request.Sector + (ulong)request.SectorCount > _first;
    }

    private static (ulong First, ulong Last) ParseRange(string range)
    {
        string[] ends = range.Split('-');
        return ends.Length is 1 or 2
            && ulong.TryParse(ends[0], NumberStyles.None, CultureInfo.InvariantCulture, out ulong first)
            && ulong.TryParse(ends[^1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong last)
            && first <= last && last < ulong.MaxValue
            ? (first, last)
            : throw new TargetException($"sectors={range} is not FIRST-LAST, as in sectors=2048-4095");
    }
}
