using System.Globalization;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>A VDI in a pool. Each used segment is an object; a free segment has none.</summary>
/// <remarks>
/// Segment numbers are taken in ranges and never used again. Keys of the first object name the ranges. So a new segment
/// is found without a search, and a process that was replaced cannot interfere with it.
/// </remarks>
internal sealed class RadosContainer : IVdiContainer
{
    /// <summary>Segments of a range: 1 GiB.</summary>
    public const int RangeSegments = 256;

    /// <summary>Keys of the first object, each of a range of numbers that were taken.</summary>
    public const string RangePrefix = "range.";

    private const long FirstFree = 1; // after the one that says what the VDI is
    private const long EndOfNumbers = 1L << 30; // of segments whose blocks have an address

    private readonly RadosPool _pool;
    private readonly RadosSegments _segments;
    private readonly WriterLock? _owner;
    private readonly RadosLease? _reading;
    private readonly SegmentCount _count;
    private readonly OwnSegments _own = new();
    private int _removed; // as FreesUpTo says
    private long _next;
    private long _rangeEnd;

    /// <summary>Makes one.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="vdi">The VDI's number.</param>
    /// <param name="owner">That we write it; null when not.</param>
    /// <param name="reading">That we read it while nobody writes; null when not.</param>
    /// <param name="warn">Takes what people should know.</param>
    public RadosContainer(RadosPool pool, uint vdi, WriterLock? owner, RadosLease? reading, Action<string> warn)
    {
        _pool = pool;
        _segments = new RadosSegments(vdi);
        _owner = owner;
        _reading = reading;
        _count = new SegmentCount(pool, _segments.First, owner);
        Blocks = new RadosBlocks(pool, _segments, owner, reading, warn);
    }

    public string Path => $"rados:{_pool.Name}/{_segments.First}";

    public IBlockImage Blocks { get; }

    /// <summary>
    /// For a VDI that no process holds open: the highest epoch of objects that may be freed. Objects with a higher one
    /// belong to a process that has opened the VDI since. Null otherwise.
    /// </summary>
    public byte[]? FreesUpTo { get; init; }

    public bool IsRemote => true;

    public bool FreesWholeSegments => true;

    /// <summary>Makes the first object of a VDI.</summary>
    /// <exception cref="RadosException">It cannot be made.</exception>
    public static void Make(RadosPool pool, uint vdi, ReadOnlySpan<byte> content, ReadOnlySpan<byte> copy)
    {
        RadosSegments segments = new(vdi);
        using RadosWrite write = new RadosWrite().Create()
            .SetAttribute(WriterLock.EpochAttribute, FencingNumber.Format(0))
            .SetAttribute(SegmentCount.Attribute, FencingNumber.Format(0)).Write(0, content);
        pool.Change(segments.First, write);
        using RadosWrite second = new RadosWrite().Create()
            .SetAttribute(WriterLock.EpochAttribute, FencingNumber.Format(0)).Write(0, copy);
        pool.Change(segments.Copy, second);
    }

    public void Read(long block, Span<byte> target)
    {
        while (target.Length > 0)
        {
            RadosName name = _segments.Of(VdiFormat.SegmentOf(block));
            Claim(VdiFormat.SegmentOf(block)); // what we go on from must not change any more
            int blocks = (int)Math.Min(
                target.Length / VdiFormat.BlockSize, VdiFormat.SegmentBlocks - (block % VdiFormat.SegmentBlocks));
            Span<byte> piece = target[..(blocks * VdiFormat.BlockSize)];
            int done = Math.Max(0, _pool.Read(name, VdiFormat.OffsetOf(block % VdiFormat.SegmentBlocks), piece));
            piece[done..].Clear();
            target = target[piece.Length..];
            block += blocks;
        }
    }

    /// <summary>
    /// Returns the name that the superblock of a VDI, or its copy, has; null if neither can be read.
    /// </summary>
    public static string? ReadName(RadosPool pool, uint vdi)
    {
        RadosSegments segments = new(vdi);
        byte[] block = new byte[VdiFormat.BlockSize];
        VdiSuperblock? ReadFrom(RadosName name) =>
            pool.Read(name, 0, block) > 0 ? VdiSuperblock.TryRead(block) : null;
        return (ReadFrom(segments.First) ?? ReadFrom(segments.Copy))?.Name;
    }

    public bool IsMissing(long segment) => _pool.Measure(_segments.Of(segment)) < 0;

    public void ReadCopy(long block, Span<byte> target)
    {
        int done = Math.Max(0, _pool.Read(_segments.Copy, VdiFormat.OffsetOf(block), target));
        target[done..].Clear();
    }

    public void WriteCopy(long block, ReadOnlySpan<byte> content, bool isFlushed)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner!.Epoch)
            .Write(VdiFormat.OffsetOf(block), content);
        if (!_owner.IsTaken(_pool.TryChange(_segments.Copy, write, isForced: true), _segments.Copy))
            throw TakenOver();
    }

    public void Write(long block, ReadOnlySpan<byte> content)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner!.Epoch)
            .Write(VdiFormat.OffsetOf(block), content);
        if (!_owner.IsTaken(_pool.TryChange(_segments.First, write), _segments.First))
            throw TakenOver();
    }

    public void Claim(long segment)
    {
        if (_owner is not null && !_owner.Claim(_segments.Of(segment)))
            throw TakenOver();
    }

    public IEnumerable<long> FindFreeSegments()
    {
        while (true)
        {
            if (_next >= _rangeEnd && !TryTakeRange()) yield break;
            yield return _next++;
        }
    }

    /// <summary>
    /// Bytes of its objects: as its writer counted them, so that it takes two questions. Blocks the thread.
    /// </summary>
    public long Measure() =>
        Math.Max(0, _pool.Measure(_segments.First))
        + ((_count.Read() ?? FindUsedSegments().Count()) * VdiFormat.SegmentSize);

    public IEnumerable<long> FindUsedSegments()
    {
        IReadOnlyList<long> ranges = ReadRanges(); // first: what is made later is in the last of them, or behind it
        IReadOnlyList<long>? known = _own.TryList();
        List<long> found = [.. known ?? ranges.SelectMany(FindInRange)];
        if (_owner is null) return found;
        if (known is null) _own.Complete(found);
        // The last one says which numbers come next.
        HashSet<long> used = [.. found.Select(segment => segment / RangeSegments)];
        foreach (long range in ranges.SkipLast(1).Where(range => !used.Contains(range))) Forget(range);
        _count.Correct(found.Count);
        return found;
    }

    public BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve)
    {
        RadosName name = _segments.Of(segment);
        int result = _owner!.Make(name, isReserve);
        if (result is >= 0 or -LinuxError.Exists) _own.Add(segment);
        if (result == -LinuxError.Exists)
        {
            Claim(segment);
            return BlockStatus.Okay;
        }

        // Who has taken over meanwhile may have removed the VDI, so that nobody would find this object.
        if (result >= 0 && !_count.TryAdd(1))
        {
            _owner.RemoveOwn(name);
            _own.Remove(segment);
            throw new IOException($"{Path} has been taken over by another host, or deleted");
        }

        if (result < 0) _next = segment; // to be tried again, or a full pool would use numbers up
        BlockStatus status = LinuxError.ToStatus(-result);
        return status is BlockStatus.Okay or BlockStatus.NoSpace
            ? status
            : throw new RadosException(-result, $"object {name} cannot be made");
    }

    public BlockStatus Free(IReadOnlyList<BlockRun> runs)
    {
        foreach (IGrouping<long, BlockRun> segment in runs.SelectMany(run => run.BySegment())
            .GroupBy(run => VdiFormat.SegmentOf(run.First)))
        {
            using RadosWrite write = new();
            if (_owner is not null) write.IfAttributeNotAbove(WriterLock.EpochAttribute, _owner.Epoch);
            else if (FreesUpTo is not null) write.IfAttributeNotAbove(WriterLock.EpochAttribute, FreesUpTo);
            else write.IfExists();
            foreach (BlockRun run in segment)
            {
                if (run.Count == VdiFormat.SegmentBlocks) write.Remove();
                else write.Zero(VdiFormat.OffsetOf(run.First % VdiFormat.SegmentBlocks), VdiFormat.OffsetOf(run.Count));
            }

            int result = _pool.TryChange(_segments.Of(segment.Key), write);
            if (result is < 0 and not -LinuxError.NoEntry) return LinuxError.ToStatus(-result);
            if (segment.All(run => run.Count != VdiFormat.SegmentBlocks)) continue;
            _own.Remove(segment.Key);
            if (result < 0) continue;
            _count.Remove();
            _removed++;
        }

        return BlockStatus.Okay;
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await Blocks.DisposeAsync().ConfigureAwait(false);
            if (_owner is not null) await Task.Run(_count.Note).ConfigureAwait(false);
            else if (FreesUpTo is not null && _removed > 0)
                await Task.Run(() => _count.Subtract(_removed, FreesUpTo)).ConfigureAwait(false);
        }
        finally
        {
            _owner?.Dispose();
            _reading?.Dispose();
        }
    }

    private IEnumerable<long> FindInRange(long range)
    {
        for (long at = Math.Max(FirstFree, range * RangeSegments); at < (range + 1) * RangeSegments; at++)
        {
            if (!IsMissing(at)) yield return at;
        }
    }

    private IOException TakenOver() => new($"{Path} has been taken over by another host");

    private bool TryTakeRange()
    {
        long range = ReadRanges() is [.., long last] ? last + 1 : 0;
        if ((range + 1) * RangeSegments > EndOfNumbers) return false;
        using RadosWrite copy = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner!.Epoch)
            .SetKey(KeyOf(range), "");
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner.Epoch)
            .SetKey(KeyOf(range), "");
        _pool.TryChange(_segments.Copy, copy); // first, so that it never has fewer; it may be gone
        if (!_owner.IsTaken(_pool.TryChange(_segments.First, write), _segments.First))
            throw TakenOver();
        _next = Math.Max(FirstFree, range * RangeSegments);
        _rangeEnd = (range + 1) * RangeSegments;
        return true;
    }

    private void Forget(long range)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner!.Epoch)
            .RemoveKey(KeyOf(range));
        _ = _pool.TryChange(_segments.First, write); // it is only looked at in vain
        using RadosWrite copy = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, _owner.Epoch)
            .RemoveKey(KeyOf(range));
        _ = _pool.TryChange(_segments.Copy, copy);
    }

    private IReadOnlyList<long> ReadRanges() =>
        [.. _pool.GetKeys(_segments.First, RangePrefix).Concat(_pool.GetKeys(_segments.Copy, RangePrefix))
            .Select(key =>
                long.Parse(key.Key[RangePrefix.Length..], NumberStyles.HexNumber, CultureInfo.InvariantCulture))
            .Distinct().Order()];

    private static string KeyOf(long range) => string.Create(CultureInfo.InvariantCulture, $"{RangePrefix}{range:x8}");
}
