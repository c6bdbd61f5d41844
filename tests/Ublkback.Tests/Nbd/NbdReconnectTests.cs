using System.Diagnostics;
using System.Net.Sockets;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;
using Ublkback.Nbd.Server;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Nbd;

/// <summary>Servers that go away, and come back.</summary>
public sealed class NbdReconnectTests : NbdFixture
{
    [Test]
    public async Task Requests_wait_for_the_next_server()
    {
        ImageDriver disk = await OpenAndLoseServerAsync();

        Task<byte[]> reading = disk.ReadAsync(0, 4096);
        Task writing = disk.WriteAsync(8192, Bytes(2, 4096));
        Assert.That(reading.IsCompleted, Is.False);
        await using NbdServer second = Serve();
        Assert.That(await reading, Is.EqualTo(Bytes(1, 4096)));
        await writing;
        Assert.That(await disk.ReadAsync(8192, 4096), Is.EqualTo(Bytes(2, 4096)));
        Assert.That(Warnings, Has.Some.Contains("the connection was lost").And.Some.Contains("connected again"));
        Assert.That(disk.Image.Trouble, Is.Null);
    }

    [Test]
    public async Task Requests_fail_when_no_server_comes()
    {
        ImageDriver disk = await OpenAndLoseServerAsync("?reconnect-delay=1");

        Stopwatch time = Stopwatch.StartNew();
        Assert.That(await disk.TryReadAsync(0, new byte[512]), Is.EqualTo(BlockStatus.IoError));
        Assert.That(time.Elapsed.TotalSeconds, Is.GreaterThan(0.5));
        Assert.That(
            await disk.TryWriteAsync(0, new byte[512]), Is.EqualTo(BlockStatus.IoError), "and later ones, at once");
        Assert.That(disk.Image.Trouble, Does.Contain("cannot connect to the server"));

        await using NbdServer next = Serve();
        while (await disk.TryReadAsync(0, new byte[512]) != BlockStatus.Okay) await Task.Yield();
    }

    [Test]
    public async Task A_disk_of_another_size_is_not_taken_for_the_one_that_was_lost()
    {
        ImageDriver disk = await OpenAndLoseServerAsync("?reconnect-delay=2");

        await using NbdServer second = Serve(
            new CountingImage(Disk) { Geometry = Disk.Geometry with { SectorCount = 8 } });
        Assert.That(await disk.TryReadAsync(0, new byte[512]), Is.EqualTo(BlockStatus.IoError));
        Assert.That(disk.Image.Trouble, Does.Contain("had 4194304 bytes and has 4096 now"));
    }

    [Test]
    public async Task A_successor_is_served_when_the_requests_of_the_dead_have_ended()
    {
        TaskCompletionSource began = new(TaskCreationOptions.RunContinuationsAsynchronously),
            gate = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await using NbdServer server = Serve(new CountingImage(Disk)
        {
            Delays = request =>
            {
                if (request.Operation != BlockOperation.Write) return Task.CompletedTask;
                began.TrySetResult();
                return gate.Task;
            },
        });
        RawClient dead = await RawClient.ConnectAsync(SocketPath);
        await dead.ChooseAsync();
        await dead.SendAsync(NbdCommand.Write, 0, 512, Bytes(1, 512));
        await began.Task.WaitAsync(Soon);
        dead.Dispose();

        Task<ImageDriver> opening = Task.Run(() => Open());
        await Task.WhenAny(opening, Task.Delay(300));
        Assert.That(opening.IsCompleted, Is.False, "the write of the dead has not ended");
        gate.SetResult();
        ImageDriver next = await opening.WaitAsync(Soon);
        Assert.That(await next.ReadAsync(0, 512), Is.EqualTo(Bytes(1, 512)));
    }

    [Test]
    public async Task Workers_without_a_connection_of_their_own_use_those_there_are()
    {
        NbdServerOptions few = new(new UnixDomainSocketEndPoint(SocketPath), MaxClients: 2);
        NbdServer server = Serve(options: few);
        ImageDriver disk = Open("?reconnect-delay=2");
        ImageDriver[] drivers = [disk, new(AddWorker(), disk.Image), new(AddWorker(), disk.Image)];
        for (int round = 0; round < 3; round++)
        {
            foreach (ImageDriver driver in drivers)
            {
                byte[] data = Bytes(round, 8192);
                await driver.WriteAsync(8192, data).WaitAsync(Soon);
                Assert.That(await driver.ReadAsync(8192, data.Length).WaitAsync(Soon), Is.EqualTo(data));
            }

            Assert.That(disk.Image.Trouble, Is.Null);
            await server.DisposeAsync();
            Task<byte[]>[] reading = [.. drivers.Select(driver => driver.ReadAsync(8192, 512))];
            server = Serve(options: few);
            foreach (Task<byte[]> read in reading)
                Assert.That(await read.WaitAsync(Soon), Is.EqualTo(Bytes(round, 8192)[..512]));
        }

        await server.DisposeAsync();
        foreach (ImageDriver driver in drivers)
            Assert.That(await driver.TryReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlockStatus.IoError));
        Assert.That(Warnings, Has.Some.Contains("requests go over the connections that there are"));
    }

    [TestCase(64, 1 << 20, false)]
    [TestCase(64, 1 << 20, true)]
    [TestCase(1000, 4096, false)]
    [TestCase(1000, 4096, true)]
    public async Task Whatever_ends_a_connection_ends_its_session(int count, int length, bool closesHalf)
    {
        NbdServer server = Serve(
            options: new NbdServerOptions(new UnixDomainSocketEndPoint(SocketPath), MaxClients: 1));
        using RawClient gone = await RawClient.ConnectAsync(SocketPath);
        await gone.ChooseAsync();
        await AskWithoutTakingAsync(gone, count, length);
        if (closesHalf) gone.CloseHalf();
        else gone.Dispose();

        using RawClient next = await RawClient.ConnectAsync(SocketPath);
        await next.ChooseAsync();
        await AskWithoutTakingAsync(next, count, length);
        await server.DisposeAsync().AsTask().WaitAsync(Soon);
        Assert.That(await next.IsCutOffAsync());
    }

    // So many that the server cannot take them all while no answer is taken.
    private static async Task AskWithoutTakingAsync(RawClient client, int count, int length)
    {
        // At once: many small messages fill a socket before their bytes do.
        await client.SendAsync(
            [.. Enumerable.Range(0, count).SelectMany(
                i => RawClient.Request(NbdCommand.Read, (long)i * length % DiskSize, (uint)length))]).WaitAsync(Soon);
        await Task.Delay(200);
    }

    // A disk that was used, and whose server is gone.
    private async Task<ImageDriver> OpenAndLoseServerAsync(string options = "")
    {
        await using NbdServer server = Serve();
        ImageDriver disk = Open(options);
        await disk.WriteAsync(0, Bytes(1, 4096));
        return disk;
    }
}
