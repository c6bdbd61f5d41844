using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>Storage that fails, is full, or holds something else than was written.</summary>
public sealed class VdiFaultTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;

    [Test]
    public async Task A_write_that_fails_is_reported_and_the_log_goes_on_elsewhere()
    {
        FaultyContainer container =
            new(VdiMetadata.Make(new VdiSuperblock(Guid.NewGuid(), 1, Guid.NewGuid(), 0, "web"), Empty(), ""));
        byte[] shadow = new byte[DiskSize];
        ImageDriver disk = Open(container);
        for (int round = 0; round < 5; round++)
        {
            await disk.WorkAsync(shadow, new Random(round), 50, discards: false);
            container.FailsWrites = true;
            byte[] lost = [.. Enumerable.Repeat((byte)round, 4096)];
            Assert.That(await disk.TryWriteAsync(4096, lost), Is.EqualTo(BlockStatus.IoError));
            Assert.That(
                await disk.TryWriteAsync(8192, lost), Is.Not.EqualTo(BlockStatus.Okay),
                "no checkpoint can be made either");
            container.FailsWrites = false;
        }

        await disk.WorkAsync(shadow, new Random(9), 50, discards: false);
        await HoldsAsync(disk, shadow, "afterwards");
        ImageDriver again = Open(container);
        await HoldsAsync(again, shadow, "opened again, as after a death");
    }

    [Test]
    public async Task A_storage_that_allocates_nothing_more_is_told_once_and_tried_again()
    {
        FaultyContainer container =
            new(VdiMetadata.Make(new VdiSuperblock(Guid.NewGuid(), 1, Guid.NewGuid(), 0, "web"), Empty(), ""));
        byte[] shadow = new byte[DiskSize], mega = new byte[MiB];
        ImageDriver disk = Open(container);
        for (int round = 0; round < 2; round++)
        {
            container.FailsAllocation = true;
            int failures = 0;
            for (int i = 0; i < 60 && failures < 3; i++)
            {
                if (await disk.TryWriteAsync(0, mega) == BlockStatus.IoError) failures++;
            }

            container.FailsAllocation = false;
            Assert.That(failures, Is.EqualTo(3));
            Assert.That(
                Warnings.Count(line => line.Contains("the storage has gone mad", StringComparison.Ordinal)),
                Is.EqualTo(round + 1));
            await disk.WriteAsync(0, shadow[..MiB]);
            await disk.WorkAsync(shadow, new Random(round), 50);
            await HoldsAsync(disk, shadow, "afterwards");
        }
    }

    [Test]
    public async Task Full_storage_refuses_writes_and_nothing_else()
    {
        FaultyContainer container =
            new(VdiMetadata.Make(new VdiSuperblock(Guid.NewGuid(), 1, Guid.NewGuid(), 0, "web"), Empty(), ""));
        byte[] shadow = new byte[DiskSize];
        Random random = new(1);
        ImageDriver disk = Open(container);
        await disk.WorkAsync(shadow, random, 50);
        await SnapshotAsync(disk, "s");
        container.SegmentsLeft = 3;
        byte[] block = new byte[MiB];
        BlockStatus status = BlockStatus.Okay;
        for (int i = 0; i < 60 && status == BlockStatus.Okay; i++)
        {
            random.NextBytes(block);
            status = await disk.TryWriteAsync(0, block);
            if (status == BlockStatus.Okay) block.CopyTo(shadow, 0);
        }

        Assert.That(status, Is.EqualTo(BlockStatus.NoSpace));
        Assert.That(await disk.TryFlushAsync(), Is.EqualTo(BlockStatus.Okay));
        ulong id = Parts(disk).Content.Snapshots.All[0].Id;
        Assert.That(
            await OnAsync(() => Parts(disk).Control.DeleteAsync(id)), Is.EqualTo(BlockStatus.Okay),
            "space is kept back for that");
        // Of the write that failed a part may be there.
        byte[] now = await disk.ReadAsync(0, DiskSize);
        Assert.That(now.AsSpan(MiB).SequenceEqual(shadow.AsSpan(MiB)));
        container.SegmentsLeft = int.MaxValue;
        await disk.WriteAsync(0, block);
        block.CopyTo(shadow, 0);
        await HoldsAsync(Open(container), shadow, "opened again, as after a death");
    }

    [Test]
    public async Task On_full_storage_a_discard_makes_room_at_once()
    {
        FaultyContainer container = Make(Empty());
        ImageDriver disk = Open(container);
        container.SegmentsLeft = 8;
        int collections = 0;
        Parts(disk).Segments.OnFull = () =>
        {
            collections++;
            return Task.CompletedTask;
        };
        await FillAsync(disk);
        int before = collections;
        Assert.That(before, Is.Positive);
        Assert.That(await disk.TryWriteAsync(0, new byte[MiB]), Is.EqualTo(BlockStatus.NoSpace));
        Assert.That(collections, Is.EqualTo(before), "nothing has become garbage since");
        for (int round = 0; round < 3; round++)
        {
            // Before the discard, which may begin a collection at once.
            Parts(disk).Segments.OnFull = () =>
            {
                container.SegmentsLeft = 8;
                return Task.CompletedTask;
            };
            await disk.DiscardAsync(0, DiskSize);
            await disk.WriteAsync(0, new byte[MiB]);
            Parts(disk).Segments.OnFull = () => Task.CompletedTask;
            await FillAsync(disk);
        }
    }

    [Test]
    public async Task On_full_storage_data_does_not_use_up_what_discards_need()
    {
        FaultyContainer container = Make(Empty());
        ImageDriver disk = Open(container);
        container.SegmentsLeft = 8;
        await FillAsync(disk);
        for (int i = 0; i < 1000; i++)
        {
            await disk.DiscardAsync(4096 * (i % 2000), 4096);
            Assert.That(await disk.TryWriteAsync(0, new byte[8192]), Is.EqualTo(BlockStatus.NoSpace), $"after {i}");
        }
    }

    [Test]
    public async Task On_full_storage_there_is_room_for_the_nodes_of_the_map()
    {
        const long Scattered = 1L << 37; // each write is in a leaf of its own
        FaultyContainer container = Make(Empty(Scattered));
        ImageDriver disk = Open(container, Scattered);
        container.SegmentsLeft = 30;
        byte[] block = new byte[4096];
        long written = 0;
        while (await disk.TryWriteAsync(written * MiB, block) == BlockStatus.Okay) written++;
        Assert.That(written, Is.GreaterThan(4000));
        Assert.That(await OnAsync(() => Parts(disk).Checkpointer.RunAsync()), Is.EqualTo(BlockStatus.Okay));
    }

    [Test]
    public async Task On_full_storage_garbage_is_found_without_a_checkpoint()
    {
        const long Scattered = 1L << 37;
        FaultyContainer container = Make(Empty(Scattered));
        ImageDriver disk = Open(container, Scattered);
        container.SegmentsLeft = 30;
        Parts(disk).Segments.CountNodes = () => 0;
        byte[] block = new byte[4096];
        for (long at = 0; await disk.TryWriteAsync(at * MiB, block) == BlockStatus.Okay;) at++;
        Assert.That(await OnAsync(() => Parts(disk).Checkpointer.RunAsync()), Is.EqualTo(BlockStatus.NoSpace));
        CollectionRun run = await OnAsync(() => CollectionRun.BeginAsync((VdiImage)disk.Image));
        BlockMarks marks = new();
        run.Mark(marks);
        await OnAsync(() => run.FreeAsync(marks, () => false));
        run.End();
        Assert.That(container.Freed, Is.Not.Empty, "nodes of the checkpoint that failed");
        Assert.That(container.Freed, Has.None.Matches<long>(Parts(disk).Log.Segments.Contains));
    }

    [Test]
    public async Task A_damaged_block_is_an_error_and_never_data([Values(false, true)] bool isNode)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        new Random(3).NextBytes(shadow);
        await disk.WriteAsync(0, shadow);
        await disk.Image.DisposeAsync();
        VdiAdmin store = Vdis;
        Assert.That(store.Check(null, true, Warnings.Add).Damages, Is.Zero);
        string path = Store.PathOf(Store.Find("web"));
        byte[] file = File.ReadAllBytes(path);
        // A block of data, or the root, which was written last.
        int at = isNode ? (int)RootOf(path).Address.Block * 4096 : file.AsSpan().IndexOf(shadow.AsSpan(5 * 4096, 4096));
        file[at + 100] ^= 1;
        File.WriteAllBytes(path, file);
        Assert.That(store.Check(null, true, Warnings.Add).Damages, Is.EqualTo(1));
        ImageDriver again = Open("web");
        await using (again.Image)
        {
            Assert.That(await again.TryReadAsync(5 * 4096, new byte[512]), Is.EqualTo(BlockStatus.IoError));
            if (!isNode) await HoldsAsync(again, shadow[..(4 * 4096)], "what is beside it");
        }

        Assert.That(Warnings, Has.Some.Contain("is damaged"));
    }

    private MapEntry RootOf(string path)
    {
        (IVdiContainer container, _) =
            Store.OpenOther(Store.Find(System.IO.Path.GetFileName(path) == "000001" ? "web" : ""), Warnings.Add);
        MapEntry root = VdiMetadata.Read(container).Head.Content.Root.Node;
        container.DisposeAsync().AsTask().GetAwaiter().GetResult();
        return root;
    }

    private static VdiVersion Empty(long size = DiskSize) =>
        new(
            MapRoot.EmptyFor(size / VdiFormat.BlockSize), size, 1, new LogPosition(VdiFormat.SegmentBlocks, 0, 1, 0),
            1);

    private static FaultyContainer Make(VdiVersion version) =>
        new(VdiMetadata.Make(new VdiSuperblock(Guid.NewGuid(), 1, Guid.NewGuid(), 0, "web"), version, ""));

    private static async Task FillAsync(ImageDriver disk)
    {
        BlockStatus status = BlockStatus.Okay;
        for (int i = 0; i < 60 && status == BlockStatus.Okay; i++) status = await disk.TryWriteAsync(0, new byte[MiB]);
        Assert.That(status, Is.EqualTo(BlockStatus.NoSpace));
    }

    private ImageDriver Open(FaultyContainer container, long size = DiskSize)
    {
        VdiMetadata known = VdiMetadata.Read(container);
        VdiParts parts =
            new(container, known, known.Head.Content, null, _ => throw new NotSupportedException(), null, Warnings.Add);
        ImageGeometry geometry = new((ulong)size / 512, 512, 4096, false, 4096);
        return new ImageDriver(Worker, new VdiImage(parts, geometry));
    }

    private sealed class FaultyContainer(byte[] content) : IVdiContainer, IBlockImage
    {
        private readonly RecordingFile _file = new(content);
        private readonly Lock _gate = new();

        public bool FailsWrites { get; set; }

        public int SegmentsLeft { get; set; } = int.MaxValue;

        public bool FailsAllocation { get; set; }

        public string Path => "faulty";

        public IBlockImage Blocks => this;

        public ImageGeometry Geometry => _file.Geometry;

        public string Identity => "faulty";

        public ValueTask<BlockStatus> HandleAsync(BlockRequest request) =>
            FailsWrites && request.Operation == BlockOperation.Write
            ? new ValueTask<BlockStatus>(BlockStatus.IoError)
            : _file.HandleAsync(request);

        public void Read(long block, Span<byte> target) => new RecordingContainer(_file).Read(block, target);

        public void Write(long block, ReadOnlySpan<byte> content) =>
            new RecordingContainer(_file).Write(block, content);

        public void ReadCopy(long block, Span<byte> target) => new RecordingContainer(_file).ReadCopy(block, target);

        public void WriteCopy(long block, ReadOnlySpan<byte> content, bool isFlushed) =>
            new RecordingContainer(_file).WriteCopy(block, content, isFlushed);

        public IEnumerable<long> FindFreeSegments() => new RecordingContainer(_file).FindFreeSegments();

        public List<long> Freed { get; } = [];

        public IEnumerable<long> FindUsedSegments() => new RecordingContainer(_file).FindUsedSegments();

        public BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve)
        {
            lock (_gate)
            {
                if (FailsAllocation) throw new IOException("the storage has gone mad");
                if (SegmentsLeft == 0) return BlockStatus.NoSpace;
                SegmentsLeft--;
                return new RecordingContainer(_file).Allocate(segment, isFlushedOften, isReserve);
            }
        }

        public BlockStatus Free(IReadOnlyList<BlockRun> runs)
        {
            Freed.AddRange(runs.SelectMany(run => run.BySegment()).Select(run => VdiFormat.SegmentOf(run.First)));
            return BlockStatus.Okay;
        }

        public ValueTask DisposeAsync() => default;
    }
}
