using System.Net.Sockets;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Nbd.Server;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Nbd;

/// <summary>Our client and our server.</summary>
public sealed class NbdTransferTests : NbdFixture
{
    [Test]
    public async Task What_is_written_by_one_connection_is_read_by_another()
    {
        await using NbdServer server = Serve();
        ImageDriver one = Open(), other = Open();
        byte[] shadow = new byte[DiskSize];
        await one.WorkAsync(shadow, new Random(1), 400);
        await one.FlushAsync();
        Assert.That(await other.ReadAsync(0, DiskSize), Is.EqualTo(shadow), "by requests of the largest size, too");
        byte[] large = Bytes(2, (5 << 19) + 512);
        await one.WriteAsync(512, large);
        Assert.That(await other.ReadAsync(512, large.Length), Is.EqualTo(large));
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task Zeros_are_written_without_being_sent_and_what_is_discarded_is_zeros()
    {
        CountingImage counting = new(Disk);
        await using NbdServer server = Serve(counting);
        ImageDriver disk = Open();
        await disk.WriteAsync(0, Bytes(1, 64 << 10));
        await disk.WriteAsync(4096, new byte[8192]);
        await disk.DiscardAsync(32768, 4096);
        byte[] expected = Bytes(1, 64 << 10);
        expected.AsSpan(4096, 8192).Clear();
        expected.AsSpan(32768, 4096).Clear();
        Assert.That(await disk.ReadAsync(0, expected.Length), Is.EqualTo(expected));
        Assert.That(
            counting.Requests,
            Is.EqualTo(new[] { (BlockOperation.Write, 128L), (BlockOperation.Discard, 16L),
                (BlockOperation.Discard, 8L), (BlockOperation.Read, 128L) }));
    }

    [Test]
    public async Task Errors_of_the_disk_are_told_for_the_request_concerned()
    {
        await using NbdServer server = Serve(new CountingImage(Disk)
        {
            Fails =
            request => request.Sector == 8 ? BlockStatus.NoSpace : request.Sector == 16 ? BlockStatus.IoError : null
        });
        ImageDriver disk = Open();
        Assert.That(await disk.TryWriteAsync(4096, Bytes(1, 512)), Is.EqualTo(BlockStatus.NoSpace));
        Assert.That(await disk.TryReadAsync(8192, new byte[512]), Is.EqualTo(BlockStatus.IoError));
        Assert.That(await disk.TryReadAsync(0, new byte[512]), Is.EqualTo(BlockStatus.Okay));
        Assert.That(
            Warnings, Has.One.Contains("Write of 512 bytes at 4096 failed on the server: no space left on device"));
    }

    [Test]
    public async Task What_cannot_be_opened_is_told_in_one_sentence()
    {
        Assert.That(() => Open(), Throws.TypeOf<TargetException>().With.Message.Contains("No such file or directory"));
        await using NbdServer server = Serve(
            new CountingImage(Disk) { Geometry = Disk.Geometry with { IsReadOnly = true } });
        Assert.That(
            () => Open("?export=other"),
            Throws.TypeOf<TargetException>().With.Message.Contains("it has none of that name").And.Message.Contains(
                "the only export here is ''"));
        Assert.That(() => Open(), Throws.TypeOf<TargetException>().With.Message.Contains("access=ro"));
        Assert.That(
            () => OpenTarget($"nbds:unix:{SocketPath}"),
            Throws.TypeOf<TargetException>().With.Message.Contains("refuses TLS (it does not know how)"));
        Assert.That(
            () => OpenTarget("nbd://"), Throws.TypeOf<TargetException>().With.Message.Contains("nbd://host:port/NAME"));
        Assert.That(
            () => OpenTarget("nbd:/x"), Throws.TypeOf<TargetException>().With.Message.Contains("nbd:unix:/path"));
        Assert.That(
            () => OpenTarget("nbd://127.0.0.1:1/"),
            Throws.TypeOf<TargetException>().With.Message.Contains("Connection refused"));
        Assert.That(
            () => OpenTarget($"nbd:unix:{SocketPath}?timeout=0"),
            Throws.TypeOf<TargetException>().With.Message.Contains("no number of seconds"));
        Assert.That(
            () => OpenTarget($"nbd:unix:{SocketPath}?tls-certs=/x"),
            Throws.TypeOf<TargetException>().With.Message.Contains("write nbds:"));
        Assert.That(await Open(isReadOnly: true).ReadAsync(0, 512), Is.EqualTo(new byte[512]));
    }

    [Test]
    public async Task A_disk_of_large_sectors_has_them_for_clients_too()
    {
        await using NbdServer server = Serve(
            new CountingImage(Disk) { Geometry = Disk.Geometry with { SectorSize = 4096 } });
        Assert.That(Open().Image.Geometry, Is.EqualTo(Disk.Geometry with { SectorSize = 4096 }));
    }

    [Test]
    public async Task More_clients_than_are_let_in_are_turned_away()
    {
        await using NbdServer server = Serve(
            options: new NbdServerOptions(new UnixDomainSocketEndPoint(SocketPath), MaxClients: 1));
        ImageDriver one = Open();
        Assert.That(
            () => Open(),
            Throws.TypeOf<TargetException>().With.Message.Contains("closed the connection").Or.Message.Contains(
                "reset"));
        await one.WriteAsync(0, Bytes(1, 512));
    }

    [Test]
    public async Task Requests_allocate_nothing()
    {
        const int Depth = 64, Rounds = 300;
        await using NbdServer server = Serve();
        IBlockImage client = Open().Image;
        Memory<byte>[] memory = [.. Enumerable.Range(0, Depth).Select(_ => PinnedMemory.AllocatePages(4096))];
        long allocated = long.MaxValue; // of the best round: pools grow now and then, and a leak is in each
        for (int round = 0; round < 5; round++)
        {
            long before = await AllocatedAsync();
            await ClientWorker.InvokeAsync(() => Task.WhenAll(Enumerable.Range(0, Depth).Select(LoopAsync)))
                .WaitAsync(Soon);
            allocated = Math.Min(allocated, await AllocatedAsync() - before);
        }

        Assert.That(allocated / (double)(Depth * Rounds), Is.LessThan(4), "bytes a request, of both ends");

        async Task<long> AllocatedAsync()
        {
            long client = 0, server = 0;
            await ClientWorker.RunAsync(() => client = GC.GetAllocatedBytesForCurrentThread());
            await ServerWorker.RunAsync(() => server = GC.GetAllocatedBytesForCurrentThread());
            return client + server;
        }

        async Task LoopAsync(int number)
        {
            BlockRequest request = new() { Sector = (ulong)number * 8, SectorCount = 8, Data = memory[number] };
            for (int i = 0; i < Rounds; i++)
            {
                request.Operation = i % 2 == 0 ? BlockOperation.Read : BlockOperation.Write;
                request.Data.Span[0] = 1;
                if (await client.HandleAsync(request) != BlockStatus.Okay)
                    throw new InvalidOperationException("a request failed");
            }
        }
    }
}
