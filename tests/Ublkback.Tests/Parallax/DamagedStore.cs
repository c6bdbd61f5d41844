using Ublkback.Parallax.Format;

namespace Ublkback.Tests.Parallax;

/// <summary>How something in a store is damaged.</summary>
public enum Damage
{
    /// <summary>A bit of the block is another.</summary>
    Flip,

    /// <summary>The block is zeros.</summary>
    Zero,

    /// <summary>The block is as it was some time ago.</summary>
    Older,

    /// <summary>The file ends where the block began.</summary>
    Cut,

    /// <summary>The file, or the link, is gone.</summary>
    Removed,

    /// <summary>The file is as it was some time ago.</summary>
    OlderFile,

    /// <summary>The link points to another VDI.</summary>
    OtherTarget,
}

/// <summary>One damage: of a block of a file, of a file, or of a link.</summary>
internal sealed record StoreDamage(string File, long Block, Damage Kind, string Where);

/// <summary>
/// What a folder with a store held at two moments. Makes the folder again as it was at the later one, with one damage.
/// </summary>
internal sealed class DamagedStore(string folder)
{
    private readonly Dictionary<string, byte[]> _files = [];
    private readonly Dictionary<string, byte[]> _older = [];
    private readonly Dictionary<string, string> _links = [];

    /// <summary>Takes notice of the older version of all files.</summary>
    public void TakeOlder() => Take(_older);

    /// <summary>Takes notice of all files and links.</summary>
    public void TakeNow()
    {
        Take(_files);
        foreach (string path in Paths().Where(path => LinkOf(path) is not null))
            _links[path] = LinkOf(path)!;
    }

    /// <summary>All damages there are.</summary>
    public IEnumerable<StoreDamage> FindAll()
    {
        foreach ((string file, byte[] content) in _files)
        {
            byte[]? older = _older.GetValueOrDefault(file);
            bool isLog = false;
            for (int block = 0; block < content.Length / VdiFormat.BlockSize; block++)
            {
                ReadOnlySpan<byte> now = BlockOf(content, block);
                if (block % VdiFormat.SegmentBlocks == 0) isLog = now.StartsWith("VLOG"u8);
                bool isUsed = now.ContainsAnyExcept((byte)0);
                bool isOlder = older is not null && !now.SequenceEqual(BlockOf(older, block));
                string where = Classify(file, block, now, isLog);
                if (isUsed) yield return new StoreDamage(file, block, Damage.Flip, where);
                if (isUsed) yield return new StoreDamage(file, block, Damage.Zero, where);
                if (isOlder) yield return new StoreDamage(file, block, Damage.Older, where);
                if (isUsed || block == content.Length / VdiFormat.BlockSize - 1)
                    yield return new StoreDamage(file, block, Damage.Cut, where);
            }

            string whole = Classify(file, -1, default, false);
            yield return new StoreDamage(file, 0, Damage.Removed, whole);
            if (older is not null) yield return new StoreDamage(file, 0, Damage.OlderFile, whole);
        }

        foreach (string link in _links.Keys)
        {
            string where = link.StartsWith("copies", StringComparison.Ordinal) ? "a name's copy" : "a name";
            yield return new StoreDamage(link, 0, Damage.Removed, where);
            yield return new StoreDamage(link, 0, Damage.OtherTarget, where);
        }
    }

    /// <summary>Makes the folder as it was, with a damage; null for none.</summary>
    public void Restore(StoreDamage? damage)
    {
        foreach (string path in Paths().ToList()) File.Delete(Path.Combine(folder, path));
        foreach ((string file, byte[] content) in _files)
        {
            StoreDamage? own = damage?.File == file ? damage : null;
            if (own?.Kind != Damage.Removed) Write(file, own?.Kind == Damage.OlderFile ? _older[file] : content, own);
        }

        foreach ((string link, string target) in _links)
        {
            StoreDamage? own = damage?.File == link ? damage : null;
            string other = target.EndsWith('1') ? target[..^1] + "2" : target[..^1] + "1";
            if (own?.Kind != Damage.Removed)
                File.CreateSymbolicLink(Path.Combine(folder, link), own is null ? target : other);
        }
    }

    private void Write(string file, byte[] content, StoreDamage? damage)
    {
        using FileStream stream = new(Path.Combine(folder, file), FileMode.Create);
        int count = (content.Length + VdiFormat.BlockSize - 1) / VdiFormat.BlockSize;
        byte[] block = new byte[VdiFormat.BlockSize];
        for (int i = 0; i < count; i++)
        {
            BlockOf(content, i).CopyTo(block);
            if (damage is not null && i == damage.Block) Change(block, damage);
            if (!block.AsSpan().ContainsAnyExcept((byte)0)) continue;
            stream.Position = VdiFormat.OffsetOf(i);
            stream.Write(block);
        }

        stream.SetLength(damage?.Kind == Damage.Cut ? VdiFormat.OffsetOf(damage.Block) : content.Length);
    }

    private void Change(byte[] block, StoreDamage damage)
    {
        switch (damage.Kind)
        {
            case Damage.Flip:
                int at = (int)((damage.Block * 2654435761L) % VdiFormat.BlockSize);
                block[at] ^= (byte)(1 << (at % 8));
                break;
            case Damage.Zero:
                block.AsSpan().Clear();
                break;
            case Damage.Older:
                BlockOf(_older[damage.File], (int)damage.Block).CopyTo(block);
                break;
        }
    }

    private void Take(Dictionary<string, byte[]> files)
    {
        foreach (string path in Paths().Where(path => LinkOf(path) is null))
            files[path] = File.ReadAllBytes(Path.Combine(folder, path));
    }

    private string? LinkOf(string path) => new FileInfo(Path.Combine(folder, path)).LinkTarget;

    private IEnumerable<string> Paths() => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .Select(path => Path.GetRelativePath(folder, path))
        .Where(path => !path.StartsWith("doors", StringComparison.Ordinal))
        .Order(StringComparer.Ordinal);

    private static ReadOnlySpan<byte> BlockOf(byte[] content, int block)
    {
        int at = block * VdiFormat.BlockSize;
        if (at + VdiFormat.BlockSize <= content.Length) return content.AsSpan(at, VdiFormat.BlockSize);
        byte[] padded = new byte[VdiFormat.BlockSize];
        if (at < content.Length) content.AsSpan(at).CopyTo(padded);
        return padded;
    }

    private static string Classify(string file, int block, ReadOnlySpan<byte> now, bool isLog)
    {
        if (file.EndsWith("store", StringComparison.Ordinal)) return file == "store" ? "`store`" : "`copies/store`";
        if (block < 0) return file.StartsWith("copies", StringComparison.Ordinal) ? "a copy" : "a VDI's file";
        if (file.StartsWith("copies", StringComparison.Ordinal))
            return block == 0 ? "a superblock's copy" : block <= 2 ? "a head's copy" : "a mark";
        if (block >= VdiFormat.SegmentBlocks)
            return !isLog ? "nodes, tables" : now.StartsWith("VLOG"u8) ? "a batch's header" : "a batch's blocks";
        return block switch { 0 => "a superblock", <= 2 => "a head", 3 => "the holder", _ => "the end of segment 0" };
    }
}
