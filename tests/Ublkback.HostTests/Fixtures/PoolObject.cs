using System.Text;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Fixtures;

/// <summary>An object of a pool as it was at a moment.</summary>
/// <param name="Content">Its bytes.</param>
/// <param name="Keys">Its keys and their values.</param>
/// <param name="Attributes">Its attributes, without those of locks.</param>
internal sealed record PoolObject(
    byte[] Content, Dictionary<string, string> Keys, Dictionary<string, byte[]> Attributes)
{
    /// <summary>Bytes of a block.</summary>
    public const int BlockSize = 4096;

    private static readonly string[] KnownAttributes = ["epoch", "segments", "fence.structure", "fence.collection"];

    /// <summary>Its blocks.</summary>
    public int Blocks => (Content.Length + BlockSize - 1) / BlockSize;

    /// <summary>Reads one.</summary>
    public static PoolObject Read(RadosPool pool, string name)
    {
        RadosName known = new(name);
        byte[] content = new byte[pool.Measure(known)];
        pool.Read(known, 0, content);
        Dictionary<string, byte[]> attributes = [];
        foreach (string attribute in KnownAttributes)
        {
            if (pool.GetAttribute(known, Encoding.ASCII.GetBytes(attribute + '\0')) is { } value)
                attributes.Add(attribute, value);
        }

        return new PoolObject(content, new Dictionary<string, string>(pool.GetKeys(known, "")), attributes);
    }

    /// <summary>True if the other one has the same bytes and keys.</summary>
    public bool IsSame(PoolObject other) =>
        Content.AsSpan().SequenceEqual(other.Content) && Keys.Count == other.Keys.Count
            && !Keys.Except(other.Keys).Any();

    /// <summary>A part of it; the last one is padded with zeros.</summary>
    public byte[] BlockAt(int block)
    {
        byte[] part = new byte[BlockSize];
        if (block < Blocks)
            Content.AsSpan(block * BlockSize, Math.Min(BlockSize, Content.Length - (block * BlockSize))).CopyTo(part);
        return part;
    }

    /// <summary>Returns this object with one damage.</summary>
    public PoolObject With(PoolDamage damage, PoolObject? older)
    {
        PoolObject copy = new([.. Content], new(Keys), new(Attributes));
        switch (damage.Harm)
        {
            case PoolHarm.AllOlder: return older!;
            case PoolHarm.AllZeroed: copy.Content.AsSpan().Clear(); break;
            case PoolHarm.Cut:
                int used = Content.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
                return copy with { Content = Content[..(used / 2)] };
            case PoolHarm.Flipped:
                int at = (int)((damage.Block * 2654435761L) % BlockSize);
                at = Math.Min(at, Content.Length - (damage.Block * BlockSize) - 1);
                copy.Content[(damage.Block * BlockSize) + at] ^= (byte)(1 << (at % 8));
                break;
            case PoolHarm.Zeroed: new byte[BlockSize].CopyTo(copy.Content, damage.Block * BlockSize); break;
            case PoolHarm.Older: older!.BlockAt(damage.Block).CopyTo(copy.Content, damage.Block * BlockSize); break;
            case PoolHarm.Removed:
                copy.Keys.Remove(damage.Key);
                copy.Attributes.Remove(damage.Key);
                break;
            default:
                if (Keys.TryGetValue(damage.Key, out string? value)) copy.Keys[damage.Key] = Other(value);
                else copy.Attributes[damage.Key] = Encoding.ASCII.GetBytes(
                    Other(Encoding.ASCII.GetString(Attributes[damage.Key])));
                break;
        }

        return copy;
    }

    /// <summary>Makes the object of a pool what this is. Nobody has it locked then.</summary>
    public void Write(RadosPool pool, string name)
    {
        RadosName known = new(name);
        Remove(pool, name);
        using RadosWrite write = new RadosWrite().Create().SetLength(Content.Length);
        for (int block = 0; block < Blocks; block++)
        {
            ReadOnlySpan<byte> part = Content.AsSpan(block * BlockSize);
            part = part[..Math.Min(BlockSize, part.Length)];
            if (part.ContainsAnyExcept((byte)0)) write.Write(block * BlockSize, part);
        }

        foreach ((string key, string value) in Keys) write.SetKey(key, value);
        foreach ((string attribute, byte[] value) in Attributes)
            write.SetAttribute(Encoding.ASCII.GetBytes(attribute + '\0'), value);
        pool.Change(known, write);
    }

    /// <summary>Removes an object, if it is there.</summary>
    public static void Remove(RadosPool pool, string name)
    {
        using RadosWrite write = new RadosWrite().Remove();
        _ = pool.TryChange(new RadosName(name), write);
    }

    // VDI 1 and VDI 2 are those of the store; other numbers become larger or smaller by one.
    private static string Other(string value) => value.Length == 0 ? "1" : value[..^1] + (value[^1] == '1' ? '2' : '1');
}
