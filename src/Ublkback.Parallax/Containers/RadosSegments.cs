using System.Collections.Concurrent;
using System.Globalization;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>The names of the objects of a VDI: one for each segment. Any thread.</summary>
internal sealed class RadosSegments(uint vdi)
{
    private const int MaxKept = 1 << 16;

    private readonly ConcurrentDictionary<long, RadosName> _names = new();

    /// <summary>The object of segment 0, where everything begins.</summary>
    public RadosName First => Of(0);

    /// <summary>The object that has the copy of what is essential.</summary>
    public RadosName Copy { get; } = new(string.Create(CultureInfo.InvariantCulture, $"vdi.{vdi:x6}.copy"));

    /// <summary>The object of a segment.</summary>
    public RadosName Of(long segment)
    {
        if (_names.TryGetValue(segment, out RadosName? known)) return known;
        if (_names.Count >= MaxKept) _names.Clear();
        return _names[segment] =
            new RadosName(string.Create(CultureInfo.InvariantCulture, $"vdi.{vdi:x6}.{segment:x8}"));
    }
}
