using System.Globalization;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;
using Ublkback.Xen;

namespace Ublkback.HostTests.Guests;

/// <summary>
/// Hostile guests beside a well-behaved one whose every byte is checked. <c>UBLKBACK_FUZZ_SEED</c> repeats a run,
/// <c>UBLKBACK_FUZZ_REQUESTS</c> and <c>UBLKBACK_FUZZ_HANDSHAKES</c> make a thorough one.
/// </summary>
public sealed class FuzzTests : HostFixture
{
    private const int RequestsPerConnection = 20_000;
    private const long MaxResidentBytes = 400L << 20;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private static readonly string Frontend = FrontendConnection.FrontendPath(1, Xvda);
    private static readonly string Backend = $"/local/domain/0/backend/vbd/1/{Xvda}";

    private static int Seed { get; } = Number("SEED", Environment.TickCount);

    private static string[] States { get; } = [
        "0", "1", "2", "3", "3", "4", "4", "5", "6", "7", "", "-1", "x", "99999999999"];

    private static string[] Odd { get; } =
        ["", "0", "1", "2", "4", "5", "16", "-1", "4294967295", "4294967296", "x", "x86_32-abi", "x86_64-abi",
            "\u0001\u001b[2J", new('9', 2000)];

    [Test]
    public async Task Mutated_requests_hurt_nobody_else()
    {
        int total = Number("REQUESTS", 60_000);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={Seed}");
        Random random = new(Seed);
        await using Neighbour neighbour = await StartNeighbourAsync();
        EmulatedGuest guest = await MakeGuestAsync(1);
        for (int done = 0; done < total; done += RequestsPerConnection)
        {
            // A fresh one: what is left of a former connection names grants that may be those of the ring now.
            using FileStream image = new(
                Path.Combine("/dev/shm", $"{Path.GetFileName(Scratch)}.img"), FileMode.Create, FileAccess.ReadWrite,
                FileShare.ReadWrite, bufferSize: 0, FileOptions.DeleteOnClose);
            image.SetLength(8 << 20);
            DiskConfiguration configuration = Disk(image.Name, isWritable: random.Next(8) != 0);
            await Toolstack.AttachAsync(1, configuration);
            BlkfrontOptions options = new(
                random.Next(2) == 0 ? BlkifAbi.X86_64 : BlkifAbi.X86_32, random.Next(5), random.Next(1, 3),
                random.Next(2) == 0);
            using (FrontendConnection connection = await FrontendConnection.ConnectAsync(
                guest, Store, Xvda, options, Soon))
            {
                int[] seeds = [.. connection.Queues.Select(_ => random.Next())];
                RequestFuzzer[] fuzzers = [
                    .. seeds.Select((seed, queue) => new RequestFuzzer(guest, connection, queue, seed))];
                await Task.WhenAll(fuzzers.Select(
                    fuzzer => Task.Run(() => fuzzer.Run(RequestsPerConnection / fuzzers.Length, Patience))));
                if (random.Next(4) == 0) fuzzers[0].BreakRing();
                await connection.CloseAsync(Patience);
                foreach (RequestFuzzer fuzzer in fuzzers) fuzzer.Release();
            }

            await Toolstack.DetachAsync(1, configuration);
            Assert.That(Daemon.HasExited, Is.False);
            Assert.That(image.Length, Is.EqualTo(8 << 20));
        }

        await neighbour.CheckAsync();
        Daemon.Refresh();
        Assert.That(Daemon.WorkingSet64, Is.LessThan(MaxResidentBytes));
    }

    [Test]
    public async Task Mutated_handshakes_hurt_nobody_else()
    {
        int total = Number("HANDSHAKES", 400);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={Seed}");
        Random random = new(Seed);
        await using Neighbour neighbour = await StartNeighbourAsync();
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("hostile.img")));
        uint page = guest.AllocatePages(1);
        uint reference = guest.Grant(page, 0);
        (uint port, IEventChannel channel) = guest.AllocatePort();
        using (channel)
        {
            for (int done = 0; done < total; done++)
            {
                await MutateAsync(random, reference, port);
                if (done % 200 == 199) await ProveServedAsync(guest);
            }
        }

        Assert.That(Daemon.HasExited, Is.False);
        await neighbour.CheckAsync();
        Daemon.Refresh();
        Assert.That(Daemon.WorkingSet64, Is.LessThan(MaxResidentBytes));
    }

    private async Task MutateAsync(Random random, uint reference, uint port)
    {
        string[] names = ["protocol", "ring-page-order", "multi-queue-num-queues", "feature-persistent", "ring-ref",
            "ring-ref0", "queue-0/ring-ref", "event-channel"];
        if (random.Next(2) == 0)
        {
            await Store.WriteAsync($"{Frontend}/ring-ref", Text(reference));
            await Store.WriteAsync($"{Frontend}/event-channel", Text(port));
            await Store.WriteAsync($"{Frontend}/protocol", "x86_64-abi");
        }

        string name = names[random.Next(names.Length)];
        string node = $"{Frontend}/{name}";
        // A port that nobody has is tried for a while, so it comes rarely.
        bool isPort = name == "event-channel" && random.Next(20) != 0;
        if (random.Next(4) == 0) await Store.RemoveAsync(node);
        else if (!isPort) await Store.WriteAsync(node, Odd[random.Next(Odd.Length)]);
        await Store.WriteAsync($"{Frontend}/state", States[random.Next(States.Length)]);
    }

    // Whatever it said before, a guest that now behaves gets its disk.
    private async Task ProveServedAsync(EmulatedGuest guest)
    {
        foreach (string node in new[] { "ring-page-order", "multi-queue-num-queues", "ring-ref0", "queue-0" })
            await Store.RemoveAsync($"{Frontend}/{node}");
        await Store.WriteAsync($"{Frontend}/state", "5");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "5", "6");
        await Store.WriteAsync($"{Frontend}/state", "6");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "6");
        await Store.WriteAsync($"{Frontend}/state", "1");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "2");
        await using Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[4096]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await disk.CloseAsync(Soon);
        await Store.WriteAsync($"{Frontend}/state", "1");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "2");
    }

    private async Task<Neighbour> StartNeighbourAsync()
    {
        EmulatedGuest guest = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(2, Disk(MakeImage("neighbour.img", VerifyingLoad.DiskSize)));
        Neighbour neighbour =
            new(await ConnectAsync(
                guest, options: new BlkfrontOptions(BlkifAbi.X86_64, 1, Queues: 2, IsPersistent: true)));
        await neighbour.StartAsync();
        return neighbour;
    }

    private static string Text(uint number) => number.ToString(CultureInfo.InvariantCulture);

    internal static int Number(string name, int otherwise) =>
        int.TryParse(
            Environment.GetEnvironmentVariable($"UBLKBACK_FUZZ_{name}"), CultureInfo.InvariantCulture, out int number)
                ? number
                : otherwise;

    /// <summary>A guest that behaves.</summary>
    private sealed class Neighbour(Blkfront disk) : IAsyncDisposable
    {
        private readonly VerifyingLoad _load = new(disk);
        private double _aloneP99;

        public async Task StartAsync()
        {
            const int WarmUp = 2000;
            await _load.ProgressAsync(WarmUp, Patience);
            _load.TakeP99();
            await _load.ProgressAsync(WarmUp, Patience);
            _aloneP99 = _load.TakeP99();
        }

        public async Task CheckAsync()
        {
            TestContext.Out.WriteLine($"p99 of the neighbour: {_aloneP99:F0} us alone, {_load.TakeP99():F0} us beside");
            await _load.ProgressAsync(500, Patience);
            await _load.StopAsync(Patience);
        }

        public ValueTask DisposeAsync() => disk.DisposeAsync();
    }
}
