using System.Buffers.Binary;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// A table that is in memory as a whole, and the sectors of it that are not in the file yet: level 1, and the places of
/// the blocks of reference counts. On the image's worker.
/// </summary>
internal sealed class DirtyTable(ulong[] entries)
{
    private const int EntriesPerSector = BlockRequest.SectorSize / Qcow2Layout.EntrySize;

    private readonly HashSet<int> _dirty = [];

    /// <summary>How many entries it has.</summary>
    public int Count => entries.Length;

    /// <summary>Whether all of it is in the file.</summary>
    public bool IsClean => _dirty.Count == 0;

    /// <summary>An entry.</summary>
    public ulong this[int index]
    {
        get => entries[index];
        set
        {
            entries[index] = value;
            _dirty.Add(index / EntriesPerSector);
        }
    }

    /// <summary>All entries.</summary>
    public ReadOnlySpan<ulong> Entries => entries;

    /// <summary>The same with more entries, which are zero in the file too.</summary>
    public DirtyTable Enlarge(int count)
    {
        ulong[] larger = new ulong[count];
        entries.CopyTo(larger, 0);
        DirtyTable table = new(larger);
        table._dirty.UnionWith(_dirty);
        return table;
    }

    /// <summary>Takes the sectors that are not in the file, as they are now.</summary>
    public List<(int Sector, Memory<byte> Content)> TakeDirty()
    {
        if (_dirty.Count == 0) return [];
        List<(int, Memory<byte>)> taken = new(_dirty.Count);
        Memory<byte> memory = PinnedMemory.AllocatePages(_dirty.Count * BlockRequest.SectorSize);
        foreach (int sector in _dirty)
        {
            Memory<byte> content = memory.Slice(taken.Count * BlockRequest.SectorSize, BlockRequest.SectorSize);
            CopySector(sector, content.Span);
            taken.Add((sector, content));
        }

        _dirty.Clear();
        return taken;
    }

    /// <summary>Writing them failed.</summary>
    public void GiveBack(List<(int Sector, Memory<byte> Content)> sectors) =>
        _dirty.UnionWith(sectors.Select(sector => sector.Sector));

    /// <summary>Copies a sector as it is to be in the file.</summary>
    public void CopySector(int sector, Span<byte> to)
    {
        to.Clear();
        int first = sector * EntriesPerSector;
        for (int i = first; i < Math.Min(first + EntriesPerSector, entries.Length); i++)
            BinaryPrimitives.WriteUInt64BigEndian(to[((i - first) * Qcow2Layout.EntrySize)..], entries[i]);
    }
}
