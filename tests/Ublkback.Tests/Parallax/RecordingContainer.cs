using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>A VDI's file in memory that remembers every change and every flush of it.</summary>
internal sealed class RecordingContainer(RecordingFile file) : IVdiContainer
{
    private const long CopyAt = 512; // nothing else is there

    public string Path => "recording";

    public IBlockImage Blocks => file;

    public void Read(long block, Span<byte> target)
    {
        ReadOnlySpan<byte> content = file.Content;
        long offset = VdiFormat.OffsetOf(block);
        int there = (int)Math.Clamp(content.Length - offset, 0, target.Length);
        if (there > 0) content.Slice((int)offset, there).CopyTo(target);
        target[there..].Clear();
    }

    public void Write(long block, ReadOnlySpan<byte> content) => file.Write(VdiFormat.OffsetOf(block), content);

    public void ReadCopy(long block, Span<byte> target) => Read(CopyAt + block, target);

    public void WriteCopy(long block, ReadOnlySpan<byte> content, bool isFlushed) => Write(CopyAt + block, content);

    public IEnumerable<long> FindFreeSegments()
    {
        for (long segment = Math.Max(
            1, (file.Content.Length + VdiFormat.SegmentSize - 1) / VdiFormat.SegmentSize); ; segment++)
            yield return segment;
    }

    public IEnumerable<long> FindUsedSegments()
    {
        for (long segment = 1; segment < file.Content.Length / VdiFormat.SegmentSize; segment++) yield return segment;
    }

    public BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve) =>
        file.SetLength(Math.Max(file.Content.Length, (segment + 1) * VdiFormat.SegmentSize));

    public BlockStatus Free(IReadOnlyList<BlockRun> runs)
    {
        foreach (BlockRun run in runs) file.Clear(VdiFormat.OffsetOf(run.First), (int)VdiFormat.OffsetOf(run.Count));
        return BlockStatus.Okay;
    }

    public ValueTask DisposeAsync() => default;
}
