using System.Text;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// Requests to the process that holds a VDI in a pool, when that opens or closes the VDI, or goes away meanwhile.
/// </summary>
public sealed class RadosRequestTests
{
    private const int Size = 1 << 20;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan TimeToClose = TimeSpan.FromSeconds(2); // less than a reply is waited for
    private static readonly TimeSpan AWhile = TimeSpan.FromMilliseconds(500);

    private string _pool = "";
    private long _lastDisk = 1 << 22;
    private Worker? _worker;
    private VdiAdmin? _vdis;

    private string StoreText => $"rados:{_pool}?conf={OneNodeCeph.Configuration}";

    [SetUp]
    public async Task MakeVdi()
    {
        _pool = await OneNodeCeph.MakePoolAsync();
        _worker = new Worker("requests");
        _vdis = VdiAdmin.Open(StoreText, true, _worker, Opening);
        _vdis.Create("w", Size);
    }

    [TearDown]
    public void Close()
    {
        _vdis?.Dispose();
        _worker?.Dispose();
    }

    [Test]
    public async Task A_request_that_was_carried_out_is_replied_before_the_vdi_is_closed()
    {
        int answers = 0;
        StoppedCall reply = new(operation => IsAnswer(operation) && ++answers == 2); // the first says that it is alive
        IBlockImage image = await OpenAsync(reply);
        Task snapshot = Task.Run(() => _vdis!.SnapshotAsync("w", "s"));
        await reply.Stopped.WaitAsync(Patience);
        Task closing = Task.Run(async () => await image.DisposeAsync());
        await Task.Delay(TimeToClose);
        reply.GoOn();
        await snapshot.WaitAsync(Patience);
        await closing.WaitAsync(Patience);
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "s" }));
    }

    [Test]
    public async Task A_request_whose_reply_is_lost_is_not_sent_again()
    {
        int answers = 0;
        StoppedCall reply = new(operation => IsAnswer(operation) && ++answers == 2);
        IBlockImage image = await OpenAsync(reply);
        Task snapshot = Task.Run(() => _vdis!.SnapshotAsync("w", "s"));
        string door = (await reply.Stopped.WaitAsync(Patience))["answer ".Length..];
        using (RadosPool pool = RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), false))
        using (RadosWrite write = new RadosWrite().Remove())
            pool.Change(new RadosName(door), write); // as who replaces a process does
        Assert.That(
            async () => await snapshot.WaitAsync(Patience),
            Throws.InstanceOf<TargetException>().With.Message.Contains("it is not known whether 'snapshot' was carried")
                .And.Message.Contains("'ublkback vdi snapshots NAME' shows whether"));
        reply.GoOn();
        await image.DisposeAsync();
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "s" }));
    }

    [Test]
    public async Task A_request_that_is_delivered_twice_is_carried_out_once()
    {
        IBlockImage image = await OpenAsync(null);
        using RadosPool pool = RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), false);
        RadosName first = new("vdi.000001.00000000");
        string cookie = RadosLocks.List(pool, first, "writer").Lockers.Single().Cookie;
        RadosName door = new($"vdi.door.{cookie[(cookie.LastIndexOf('/') + 1)..]}");
        byte[] id = Guid.NewGuid().ToByteArray();
        byte[] request = [.. id, .. """{"version":1,"command":"snapshot","snapshot":"s"}"""u8];
        string[] replies =
        [
            .. await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(
                () => Encoding.UTF8.GetString(RadosWatch.Notify(pool, door, request, Patience).Answers.Single())))),
        ];
        Assert.That(replies, Is.All.EqualTo(replies[0]));
        Assert.That(replies[0], Does.Not.Contain("error"));
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "s" }));
        await image.DisposeAsync();
        // If the reply had been lost, its client would find the request there.
        Assert.That(pool.GetAttribute(first, "closed\0"u8).AsSpan().IndexOf(id), Is.Positive);
    }

    [Test]
    public async Task A_request_to_a_process_that_is_opening_the_vdi_waits_for_it()
    {
        int reads = 0;
        StoppedCall read = new(operation => operation == "read vdi.000001.copy" && ++reads == 2); // after the lock
        Task<IBlockImage> opening = OpenAsync(read);
        await read.Stopped.WaitAsync(Patience);
        Task snapshot = Task.Run(() => _vdis!.SnapshotAsync("w", "s"));
        await Task.Delay(AWhile);
        Assert.That(snapshot.IsCompleted, Is.False, $"{snapshot.Exception}");
        read.GoOn();
        IBlockImage image = await opening.WaitAsync(Patience);
        await snapshot.WaitAsync(Patience);
        await image.DisposeAsync();
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "s" }));
    }

    [Test]
    public async Task Each_request_is_carried_out_once_while_a_vdi_is_opened_and_closed()
    {
        const int Snapshots = 12;
        using CancellationTokenSource ended = new();
        Task holder = Task.Run(async () =>
        {
            while (!ended.IsCancellationRequested)
            {
                try
                {
                    IBlockImage image = await OpenAsync(null);
                    await Task.Delay(Random.Shared.Next(100));
                    await image.DisposeAsync();
                }
                catch (ImageInUseException)
                {
                    // A command has it.
                }
            }
        });
        for (int i = 0; i < Snapshots; i++)
            await Task.Run(() => _vdis!.SnapshotAsync("w", $"s{i}")).WaitAsync(Patience);
        await ended.CancelAsync();
        await holder.WaitAsync(Patience);
        Assert.That(SnapshotNames(), Is.EqualTo(Enumerable.Range(0, Snapshots).Select(i => $"s{i}")));
    }

    private static bool IsAnswer(string operation) => operation.StartsWith("answer ", StringComparison.Ordinal);

    private string[] SnapshotNames() => [.. _vdis!.Describe("w").Snapshots.Select(snapshot => snapshot.Name)];

    private Task<IBlockImage> OpenAsync(StoppedCall? call) => Task.Run(() =>
    {
        RadosPool.BeforeEach.Value = call is null ? null : call.Before;
        IBlockImage image = VdiOpener.Open(
            BlockTarget.Parse($"vdi:w?store={StoreText.Replace('?', '&')}"), Opening(false));
        image.UseOn(_worker!);
        return image;
    });

    private ImageOpening Opening(bool isReadOnly) => new(
        "the test", Interlocked.Increment(ref _lastDisk), isReadOnly, true, null, TestContext.Out.WriteLine);

    // Stops the first thread that comes to an operation, and no other.
    private sealed class StoppedCall(Func<string, bool> isAt)
    {
        private readonly TaskCompletionSource<string> _stopped =
            new(TaskCreationOptions.RunContinuationsAsynchronously);

        private readonly ManualResetEventSlim _mayGoOn = new();
        private readonly Lock _gate = new();

        public Task<string> Stopped => _stopped.Task;

        public void Before(string operation)
        {
            lock (_gate)
            {
                if (_stopped.Task.IsCompleted || !isAt(operation)) return;
                _stopped.SetResult(operation);
            }

            _mayGoOn.Wait();
        }

        public void GoOn() => _mayGoOn.Set();
    }
}
