using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>
/// A frontend that writes any states, then behaves and gets its disk. There are 1463 sequences of up to three states;
/// <c>UBLKBACK_FUZZ_SEQUENCES</c> says how many run, and <c>UBLKBACK_FUZZ_SEED</c> repeats a run.
/// </summary>
public sealed class FrontendStateTests : HostFixture
{
    private const int MaxLength = 3;
    private const int MaxLooks = 12;

    private static readonly string Frontend = FrontendConnection.FrontendPath(1, Xvda);
    private static readonly string Backend = $"/local/domain/0/backend/vbd/1/{Xvda}";

    private static string?[] States { get; } = [null, "0", "1", "2", "3", "4", "5", "6", "7", "8", "x"];

    /// <summary>The state that a sequence begins in.</summary>
    public enum Beginning
    {
        Waiting,
        Connected,
        Refused,
    }

    [Test]
    public async Task After_any_states_a_frontend_that_behaves_gets_its_disk([Values] Beginning beginning)
    {
        int seed = FuzzTests.Number("SEED", Environment.TickCount);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={seed}");
        Random random = new(seed);
        string?[][] all = [["7", "6", "2"], .. Sequences()];
        random.Shuffle(all.AsSpan(1));
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img")));
        foreach (string?[] sequence in all.Take(FuzzTests.Number("SEQUENCES", 60)))
        {
            string name = $"{beginning}, then {string.Join(' ', sequence.Select(state => state ?? "none"))}";
            try
            {
                await BeginAsync(beginning, guest);
                await WriteAsync(sequence, random);
                await ProveServedAsync(guest);
            }
            catch (Exception failure) when (failure is TimeoutException)
            {
                Assert.Fail($"{name}: {failure.Message}");
            }
        }
    }

    // It writes 1, sees the 2 of before, and has its rings before the daemon looks.
    [Test]
    public async Task New_rings_are_served_though_the_states_in_between_were_missed([Values] bool isDaemonKilled)
    {
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img")));
        await using Blkfront given = await ConnectAsync(guest);
        Assert.That(await given.WriteAsync(0, new byte[4096]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        if (isDaemonKilled) await KillAsync();
        Blkfront disk = await ConnectAsync(guest);
        if (isDaemonKilled) Daemon = await StartDaemonAsync();
        Assert.That(await disk.WriteAsync(8, new byte[4096]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await disk.CloseAsync(Soon);
    }

    private static IEnumerable<string?[]> Sequences()
    {
        List<string?[]> longest = [[]];
        for (int length = 1; length <= MaxLength; length++)
        {
            longest = [.. longest.SelectMany(start => States.Select(state => (string?[])[.. start, state]))];
            foreach (string?[] sequence in longest) yield return sequence;
        }
    }

    private async Task BeginAsync(Beginning beginning, EmulatedGuest guest)
    {
        await Store.WriteAsync($"{Frontend}/state", "1");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "2");
        if (beginning == Beginning.Connected)
        {
            // Its nodes go, so that the daemon does not find these rings again.
            Blkfront disk = await ConnectAsync(guest);
            await Store.RemoveAsync($"{Frontend}/event-channel");
            await disk.DisposeAsync();
        }
        else if (beginning == Beginning.Refused)
        {
            await Store.WriteAsync($"{Frontend}/state", "3");
            await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "5");
        }
    }

    // The daemon sees each state, or only the last of some.
    private async Task WriteAsync(string?[] sequence, Random random)
    {
        foreach (string? state in sequence)
        {
            if (state is null) await Store.RemoveAsync($"{Frontend}/state");
            else await Store.WriteAsync($"{Frontend}/state", state);
            for (int looks = random.Next(MaxLooks); looks > 0; looks--) await Store.ReadAsync($"{Backend}/state");
        }
    }

    private async Task ProveServedAsync(EmulatedGuest guest)
    {
        await Store.WriteAsync($"{Frontend}/state", "1");
        await FrontendConnection.WaitForStateAsync(Store, Backend, Soon, "2");
        Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[4096]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await disk.CloseAsync(Soon);
        await Store.RemoveAsync($"{Frontend}/event-channel");
    }
}
