using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// What the objects of a store in a pool were at some moments. Makes them again what they were at the last one, with
/// one damage.
/// </summary>
/// <param name="pool">The pool.</param>
/// <param name="list">Names all objects.</param>
internal sealed class DamagedPool(RadosPool pool, Func<Task<string[]>> list)
{
    private const int SegmentBlocks = 1024;

    // Of each object the latest version that is not the last one.
    private readonly Dictionary<string, PoolObject> _older = [];
    private readonly List<Dictionary<string, PoolObject>> _moments = [];
    private readonly Dictionary<string, PoolObject> _now = [];

    /// <summary>How many objects there are.</summary>
    public int Count => _now.Count;

    /// <summary>Takes notice of an older version of all objects.</summary>
    public async Task TakeOlderAsync() => _moments.Add(await TakeAsync());

    /// <summary>Takes notice of all objects.</summary>
    public async Task TakeNowAsync()
    {
        foreach ((string name, PoolObject now) in await TakeAsync())
        {
            _now.Add(name, now);
            PoolObject? older = _moments.Select(moment => moment.GetValueOrDefault(name))
                .LastOrDefault(older => older is not null && !older.IsSame(now));
            if (older is not null) _older.Add(name, older);
        }
    }

    /// <summary>All damages there are.</summary>
    public IEnumerable<PoolDamage> FindAll()
    {
        foreach ((string name, PoolObject now) in _now.OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            PoolObject? older = _older.GetValueOrDefault(name);
            string whole = Classify(name);
            yield return new PoolDamage(name, PoolHarm.Removed, whole);
            if (now.Content.Length > 0)
            {
                yield return new PoolDamage(name, PoolHarm.AllZeroed, whole);
                yield return new PoolDamage(name, PoolHarm.Cut, whole);
            }

            if (older is not null) yield return new PoolDamage(name, PoolHarm.AllOlder, whole);
            bool isLog = now.Content.AsSpan().StartsWith("VLOG"u8);
            for (int block = 0; block < now.Blocks; block++)
            {
                byte[] content = now.BlockAt(block);
                string where = Classify(name, block, content, isLog);
                bool isUsed = content.AsSpan().ContainsAnyExcept((byte)0);
                if (isUsed) yield return new PoolDamage(name, PoolHarm.Flipped, where, block);
                if (isUsed) yield return new PoolDamage(name, PoolHarm.Zeroed, where, block);
                if (older is not null && !content.AsSpan().SequenceEqual(older.BlockAt(block)))
                    yield return new PoolDamage(name, PoolHarm.Older, where, block);
            }

            foreach (string key in now.Keys.Keys.Concat(now.Attributes.Keys))
            {
                string where = now.Keys.ContainsKey(key)
                    ? $"a key `{Shorten(key)}` of {whole}"
                    : $"an attribute `{key}`";
                yield return new PoolDamage(name, PoolHarm.Removed, where, Key: key);
                yield return new PoolDamage(name, PoolHarm.Changed, where, Key: key);
            }
        }
    }

    /// <summary>Makes all objects what they were.</summary>
    public async Task RestoreAsync()
    {
        foreach (string name in (await list()).Except(_now.Keys)) PoolObject.Remove(pool, name);
        foreach ((string name, PoolObject now) in _now) now.Write(pool, name);
    }

    /// <summary>Damages something; all else is as it was.</summary>
    public void Damage(PoolDamage damage)
    {
        if (damage is { Harm: PoolHarm.Removed, Key: "" }) PoolObject.Remove(pool, damage.Object);
        else _now[damage.Object].With(damage, _older.GetValueOrDefault(damage.Object)).Write(pool, damage.Object);
    }

    /// <summary>Makes an object what it was, if only this one is not.</summary>
    public void Undo(PoolDamage damage) => _now[damage.Object].Write(pool, damage.Object);

    private async Task<Dictionary<string, PoolObject>> TakeAsync() =>
        (await list()).ToDictionary(name => name, name => PoolObject.Read(pool, name));

    private string Classify(string name) =>
        name.StartsWith("vdi.store", StringComparison.Ordinal) ? $"`{name}`"
        : name.StartsWith("vdi.door", StringComparison.Ordinal) ? "a door"
        : name.EndsWith(".copy", StringComparison.Ordinal) ? "a VDI's copy"
        : name.EndsWith(".00000000", StringComparison.Ordinal) ? "segment 0"
        : _now[name].Content.AsSpan().StartsWith("VLOG"u8) ? "a segment of the log"
        : _now[name].Content.AsSpan().ContainsAnyExcept((byte)0) ? "a segment of nodes" : "an empty segment";

    private string Classify(string name, int block, ReadOnlySpan<byte> content, bool isLog) => Classify(name) switch
    {
        "segment 0" => block switch { 0 => "a superblock", <= 2 => "a head", _ => "the holder" },
        "a VDI's copy" => block == 0 ? "a superblock's copy" : block <= 2 ? "a head's copy" : "a mark",
        "a segment of the log" when block < SegmentBlocks && isLog =>
            content.StartsWith("VLOG"u8) ? "a batch's header" : "a batch's blocks",
        string whole when whole.StartsWith('`') => whole,
        _ => "nodes, tables",
    };

    private static string Shorten(string key) =>
        key.Contains('.', StringComparison.Ordinal) ? key[..key.IndexOf('.', StringComparison.Ordinal)] + ".*" : key;
}
