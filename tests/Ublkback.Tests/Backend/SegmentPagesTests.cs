using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Backend;

/// <summary>The memory for pages of segments, which the rings of a worker share.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class SegmentPagesTests : BackendFixture
{
    private const int PageSize = BlkifConstants.PageSize;

    [Test]
    public async Task A_ring_behind_a_barrier_does_not_keep_the_pages_of_segments_from_others()
    {
        BlkfrontOptions options = new(BlkifAbi.X86_64, MaxSegments: 32);
        await using Blkfront first = await ConnectAsync(51712, "first", "manual", options);
        await using Blkfront second = await ConnectAsync(51728, "second", "manual", options);
        Hog hog = new();
        List<Memory<byte>> taken = [];
        await Worker.RunAsync(() =>
        {
            while (Worker.Descriptions.TryRent(hog, PageSize, out Memory<byte> page)) taken.Add(page);
            Worker.Descriptions.Withdraw(hog);
        });

        Task<BlkifStatus> barrier = first.WriteBarrierAsync(0, new byte[512]);
        ManualImage.Arrival flush = await ManualImages["first"].NextAsync();
        // Taken in one turn: while requests wait, the ring takes no others.
        using ManualResetEventSlim isPushed = new();
        Task blocking = Worker.RunAsync(isPushed.Wait);
        Task<BlkifStatus> behind = first.WriteAsync(64, new byte[512]);
        Task<BlkifStatus> last = first.ReadAsync(128, new byte[12 * PageSize]);
        isPushed.Set();
        await blocking;
        await WorkerHasLookedAsync();
        Task<BlkifStatus> other = second.ReadAsync(0, new byte[12 * PageSize]);
        await WorkerHasLookedAsync();
        await Worker.RunAsync(() => Worker.Descriptions.Return(taken[0]));
        (await ManualImages["second"].NextAsync()).End();
        Assert.That(await other.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(behind.IsCompleted, Is.False);

        await Worker.RunAsync(() => taken.Skip(1).ToList().ForEach(Worker.Descriptions.Return));
        flush.End();
        ManualImages["first"].EndAll();
        foreach (Task<BlkifStatus> request in new[] { barrier, behind, last })
            Assert.That(await request.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
    }

    private sealed class Hog : IWork
    {
        public bool IsScheduled { get; set; }

        public void Run()
        {
        }
    }
}
