using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>
/// Guests that do all that the protocol allows. <c>UBLKBACK_FUZZ_SEED</c> repeats a run, <c>UBLKBACK_FUZZ_MIXES</c> and
/// <c>UBLKBACK_FUZZ_REQUESTS</c> make a thorough one.
/// </summary>
public sealed class ValidMixTests : HostFixture
{
    private const long OddLength = (12 << 20) + 300; // ends within a sector

    [TestCase("raw")]
    [TestCase("raw in memory")]
    [TestCase("qcow2")]
    [TestCase("sectors of 4 KiB")]
    [TestCase("hooks")]
    public async Task No_valid_request_fails_on_any_ring(string kind)
    {
        int seed = FuzzTests.Number("SEED", Environment.TickCount);
        int mixes = FuzzTests.Number("MIXES", 6), requests = FuzzTests.Number("REQUESTS", 1500);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={seed}");
        Random random = new(seed);
        EmulatedGuest guest = await MakeGuestAsync(1);
        for (int mix = 0; mix < mixes; mix++)
        {
            (string target, string file) = await MakeTargetAsync(kind, mix);
            DiskConfiguration configuration = Disk(target);
            await Toolstack.AttachAsync(1, configuration);
            await RunAsync(guest, random.Next(), requests);
            await Toolstack.DetachAsync(1, configuration);
            if (kind == "qcow2") Assert.That(await RunOtherAsync("qemu-img", "check", file), Does.StartWith("0:"));
            File.Delete(file);
        }
    }

    // The same disk, by guests of all kinds, one after the other.
    private async Task RunAsync(EmulatedGuest guest, int seed, int requests)
    {
        Random random = new(seed);
        DiskModel? model = null;
        foreach (BlkifAbi abi in new[] { BlkifAbi.X86_64, BlkifAbi.X86_32 })
        {
            int? order = random.Next(6) is int drawn && drawn == 5 ? null : drawn;
            BlkfrontOptions options = new(abi, order, random.Next(1, 3), random.Next(2) == 0);
            TestContext.Out.WriteLine(
                $"{abi.Protocol}, order {order}, {options.Queues} queues, persistent {options.IsPersistent}");
            using FrontendConnection connection =
                await FrontendConnection.ConnectAsync(guest, Store, Xvda, options, Soon);
            model ??= new DiskModel(connection.SectorCount);
            bool hasDiscard = await connection.BackendNodeAsync("feature-discard") == "1";
            ValidMix mix = new(guest, connection, model, hasDiscard, random.Next());
            await Task.Run(() => mix.Run(requests));
            Assert.That(mix.Answered, Is.EqualTo(requests));
            await connection.CloseAsync(Soon);
            mix.Release();
            await Store.WriteAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/state", "1");
            await FrontendConnection.WaitForStateAsync(Store, $"/local/domain/0/backend/vbd/1/{Xvda}", Soon, "2");
            await Store.RemoveAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/ring-page-order");
            await Store.RemoveAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/multi-queue-num-queues");
        }
    }

    private async Task<(string Target, string File)> MakeTargetAsync(string kind, int number)
    {
        string path = Path.Combine(kind == "raw in memory" ? "/dev/shm" : Scratch, $"{Guid.NewGuid()}.img");
        if (kind == "qcow2")
        {
            await RunOtherAsync("qemu-img", "create", "-f", "qcow2", path, "12M");
            return ($"qcow2:{path}", path);
        }

        bool isOdd = number % 2 == 0 && kind != "sectors of 4 KiB"; // of which there must be whole ones
        using (FileStream file = File.Create(path)) file.SetLength(isOdd ? OddLength : 12 << 20);
        string target = kind switch
        {
            "hooks" => $"trace(file={Scratch}/{number}.trace)+throttle(iops=100000)+{path}",
            "sectors of 4 KiB" => $"{path}?sector-size=4096",
            _ => path,
        };
        return (target, path);
    }
}
