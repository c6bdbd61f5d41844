using System.Diagnostics;
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

    // A disk that was used, and whose server is gone.
    private async Task<ImageDriver> OpenAndLoseServerAsync(string options = "")
    {
        await using NbdServer server = Serve();
        ImageDriver disk = Open(options);
        await disk.WriteAsync(0, Bytes(1, 4096));
        return disk;
    }
}
