using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// The superblock, the heads and the marks of a VDI. The first two are there twice: in the VDI's file, and in a copy in
/// another place, which also has the marks. Blocks the thread.
/// </summary>
/// <remarks>
/// A head is written to the file first, then to the copy. So after a crash the copy may be one head behind, and
/// anything else is damage.
/// </remarks>
internal sealed class EssentialBlocks
{
    private const int Heads2 = 2;

    private readonly VdiSuperblock? _own;
    private readonly VdiSuperblock? _copied;
    private readonly VdiHead?[] _ownHeads;
    private readonly VdiHead?[] _copiedHeads;
    private readonly VdiMark?[] _marks;

    private EssentialBlocks(ReadOnlySpan<byte> own, ReadOnlySpan<byte> copy, string path)
    {
        _own = VdiSuperblock.TryRead(BlockOf(own, 0));
        _copied = VdiSuperblock.TryRead(BlockOf(copy, 0));
        if (_own is not null && _copied is not null && _own != _copied)
            throw new TargetException(
                $"{path} and the copy of its essential blocks belong to different VDIs ({_own.Id} and {_copied.Id})",
                "restore the one that is wrong from a backup");
        Superblock = _own ?? _copied ?? throw VdiSuperblock.Explain(BlockOf(own, 0), path);
        _ownHeads = ReadHeads(own);
        _copiedHeads = ReadHeads(copy);
        _marks = [VdiMark.TryRead(BlockOf(copy, VdiFormat.FirstMarkBlock), Superblock.Id),
            VdiMark.TryRead(BlockOf(copy, VdiFormat.FirstMarkBlock + 1), Superblock.Id)];
        Heads = [.. _ownHeads.Concat(_copiedHeads).OfType<VdiHead>().DistinctBy(head => head.Generation)
            .OrderByDescending(head => head.Generation).Take(Heads2)];
        Mark = _marks.OfType<VdiMark>().MaxBy(mark => mark.Count) ?? new VdiMark(Superblock.Id, 0, 0);
        Promised = _marks.OfType<VdiMark>().Select(mark => mark.Sequence).Append(0UL).Max();
    }

    /// <summary>The superblock.</summary>
    public VdiSuperblock Superblock { get; }

    /// <summary>The heads, the newest first: two, or one of a new VDI.</summary>
    public IReadOnlyList<VdiHead> Heads { get; }

    /// <summary>The newest mark.</summary>
    public VdiMark Mark { get; }

    /// <summary>All batches of the log before this one were durable.</summary>
    public ulong Promised { get; }

    /// <summary>Reads them.</summary>
    /// <exception cref="TargetException">The superblock and its copy are damaged, or the VDI has another version.
    /// </exception>
    public static EssentialBlocks Read(IVdiContainer container)
    {
        byte[] copy = new byte[VdiFormat.CopyBlocks * VdiFormat.BlockSize];
        byte[] own = new byte[(int)VdiFormat.HolderBlock * VdiFormat.BlockSize];
        try
        {
            container.ReadCopy(0, copy); // first, so that a process that writes the VDI cannot be behind in the file
            container.Read(VdiFormat.SuperblockBlock, own);
        }
        catch (IOException failure)
        {
            throw new TargetException($"{container.Path} cannot be read: {failure.Message}", failure);
        }

        return new EssentialBlocks(own, copy, container.Path);
    }

    /// <summary>Returns the superblock if it is that of a VDI of a store.</summary>
    /// <exception cref="TargetException">It is that of another VDI.</exception>
    public VdiSuperblock CheckPlace(Guid store, uint vdi, string path) =>
        Superblock.Store == store && Superblock.Vdi == vdi
        ? Superblock
        : throw new TargetException(
            $"{path} has VDI {Superblock.Vdi:x6} of store {Superblock.Store}, and not VDI {vdi:x6} of this store");

    /// <summary>Returns a sentence for each block that is damaged, or older than it can be.</summary>
    public IReadOnlyList<string> FindFaults(string path)
    {
        List<string> faults = [];
        if (_own is null) faults.Add($"the superblock of {path} is damaged; its copy has the same");
        if (_copied is null) faults.Add($"the copy of the superblock of {path} is damaged or missing");
        foreach (VdiHead head in Heads)
        {
            if (_ownHeads[SlotOf(head)]?.Generation != head.Generation)
                faults.Add($"head {head.Generation} of {path} is damaged or too old; its copy has the same");
        }

        if (Heads is [{ Generation: > 1 }])
            faults.Add($"head {Heads[0].Generation - 1} of {path} and its copy are damaged; the newer head is whole");
        if (_copied is not null) FindFaultsOfCopies(path, faults);
        if (_marks.Any(mark => mark is null)) faults.Add($"a mark of {path} is damaged or missing");
        return faults;
    }

    /// <summary>Writes again what is damaged, from what is whole.</summary>
    /// <exception cref="IOException">It cannot be written.</exception>
    public void Restore(IVdiContainer container)
    {
        byte[] block = Superblock.ToBlock();
        if (_own is null) container.Write(VdiFormat.SuperblockBlock, block);
        if (_copied is null) container.WriteCopy(VdiFormat.SuperblockBlock, block, isFlushed: true);
        foreach (VdiHead head in Heads)
        {
            head.Write(block, Superblock.Id);
            if (_ownHeads[SlotOf(head)]?.Generation != head.Generation) container.Write(head.Block, block);
            if (_copiedHeads[SlotOf(head)]?.Generation != head.Generation)
                container.WriteCopy(head.Block, block, isFlushed: true);
        }

        for (ulong slot = 0; slot < Heads2; slot++)
        {
            if (_marks[slot] is null)
                WriteMark(container, new VdiMark(Superblock.Id, (Mark.Count & ~1UL) | slot, Promised));
        }
    }

    private static void WriteMark(IVdiContainer container, VdiMark mark) =>
        container.WriteCopy(mark.Block, mark.ToBlock(), isFlushed: true);

    private void FindFaultsOfCopies(string path, List<string> faults)
    {
        ulong newest = Heads is [VdiHead head, ..] ? head.Generation : 0;
        ulong copied = _copiedHeads.Max(copy => copy?.Generation) ?? 0;
        bool isBehind = newest > 1 && copied == newest - 1;
        foreach (VdiHead known in Heads)
        {
            if (_copiedHeads[SlotOf(known)]?.Generation == known.Generation) continue;
            // Between the two writes of a head a process may have died.
            if (isBehind && known.Generation == newest && _copiedHeads.All(copy => copy is not null)) continue;
            faults.Add($"the copy of head {known.Generation} of {path} is damaged or too old");
        }
    }

    private VdiHead?[] ReadHeads(ReadOnlySpan<byte> blocks) =>
        [VdiHead.TryRead(BlockOf(blocks, 1), Superblock.Id), VdiHead.TryRead(BlockOf(blocks, 2), Superblock.Id)];

    private static int SlotOf(VdiHead head) => (int)(head.Block - VdiFormat.FirstHeadBlock);

    private static ReadOnlySpan<byte> BlockOf(ReadOnlySpan<byte> blocks, long index) =>
        blocks.Slice((int)VdiFormat.OffsetOf(index), VdiFormat.BlockSize);
}
