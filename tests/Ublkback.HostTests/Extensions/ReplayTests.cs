using System.Text.Json;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Extensions;

/// <summary>Captures of a guest's requests, played against copies of its disk.</summary>
public sealed class ReplayTests : HostFixture
{
    private const int Blocks = 64;

    private string Capture => Path.Combine(Scratch, "disk.capture");

    [Test]
    public async Task A_capture_with_data_makes_of_a_copy_what_the_guest_made_of_its_disk([Values] bool isFast)
    {
        (string image, string copy) = await CaptureAsync("data=yes");
        (int status, JsonElement report) = await ReplayAsync(copy, isFast ? ["--write", "--fast"] : ["--write"]);

        Assert.That(status, Is.Zero, report.ToString());
        Assert.That(report.GetProperty("reads_same").GetInt32(), Is.EqualTo(2 * Blocks));
        Assert.That(
            report.GetProperty("operations").EnumerateArray().Select(o => o.GetProperty("count").GetInt32()),
            Is.EqualTo([2 * Blocks, Blocks, 1, 1]));
        Assert.That(await File.ReadAllBytesAsync(copy), Is.EqualTo(await File.ReadAllBytesAsync(image)));
        // The last request, which was delayed then, may take less now; as fast as possible all of it takes a tenth of
        // the time.
        if (!isFast)
            Assert.That(
                report.GetProperty("replay_seconds").GetDouble(),
                Is.GreaterThanOrEqualTo(0.8 * report.GetProperty("capture_seconds").GetDouble()));
    }

    [Test]
    public async Task Other_data_and_other_results_are_told()
    {
        (_, string copy) = await CaptureAsync("data=yes");
        await using (FileStream file = File.OpenWrite(copy))
        {
            file.Position = 5 * 4096;
            file.WriteByte(77);
        }

        (int status, JsonElement report) = await ReplayAsync($"fault(op=read,sectors=16-23)+{copy}", "--write");
        Assert.That(status, Is.EqualTo(1));
        Assert.That(report.GetProperty("reads_different").GetInt32(), Is.EqualTo(1));
        Assert.That(report.GetProperty("other_status").GetInt32(), Is.EqualTo(2), "each block is read twice");
        Assert.That(
            report.GetProperty("examples").ToString(),
            Does.Contain("8 sectors at 40 had checksum").And.Contain(
                "Read of 8 sectors at 16 ended Okay then, IoError now"));
    }

    [Test]
    public async Task Without_data_only_what_nobody_wrote_is_compared()
    {
        (_, string copy) = await CaptureAsync("data=no");
        byte[] before = await File.ReadAllBytesAsync(copy);
        (int status, JsonElement report) = await ReplayAsync(copy, "--reads-only");

        Assert.That(status, Is.Zero, report.ToString());
        Assert.That(report.GetProperty("reads_same").GetInt32(), Is.EqualTo(Blocks), "those before the writes");
        Assert.That(report.GetProperty("reads_not_compared").GetInt32(), Is.EqualTo(Blocks));
        Assert.That(report.GetProperty("left_out").GetInt32(), Is.EqualTo(Blocks + 1));
        Assert.That(await File.ReadAllBytesAsync(copy), Is.EqualTo(before));
    }

    [Test]
    public async Task What_cannot_be_played_is_refused_in_one_line()
    {
        (_, string copy) = await CaptureAsync("data=no");
        byte[] before = await File.ReadAllBytesAsync(copy);
        (int Status, string Output, string Errors) bare = await RunAsync(
            "replay", "--host", Layout.Root, Capture, copy);
        Assert.That(
            (bare.Status, bare.Errors),
            Is.EqualTo((1,
                $"ublkback: the capture has {Blocks + 1} writes and discards, which would change {copy}: say --write "
                + "to play them, or --reads-only to leave them out\n")));
        (int Status, string Output, string Errors) small = await RunAsync(
            "replay", "--host", Layout.Root, Capture, MakeImage("small.img", 4096), "--write");
        Assert.That(small.Errors, Does.Contain("small.img has 8 sectors in units of 1: nothing was played"));
        (int Status, string Output, string Errors) wrong = await RunAsync(
            "replay", "--host", Layout.Root, copy, copy, "--write");
        Assert.That(wrong.Errors, Does.Contain("it is no capture of this version: make one with trace(file="));
        Assert.That(await File.ReadAllBytesAsync(copy), Is.EqualTo(before));
    }

    // Reads all, writes all, reads all, discards the last; gives the disk, and a copy from before.
    private async Task<(string Image, string Copy)> CaptureAsync(string argument)
    {
        string image = Path.Combine(Scratch, "a.img"), copy = Path.Combine(Scratch, "copy.img");
        byte[] content = new byte[(Blocks + 1) * 4096];
        new Random(5).NextBytes(content);
        await File.WriteAllBytesAsync(image, content);
        await File.WriteAllBytesAsync(copy, content);
        (EmulatedGuest guest, Blkfront disk) =
            await ConnectAsync($"trace(file={Capture},format=binary,{argument})+delay(time=1ms)+{image}");
        await using (disk)
        {
            await ForAllAsync(block => disk.ReadAsync(block * 8, new byte[4096]));
            await ForAllAsync(block => disk.WriteAsync(block * 8, Enumerable.Repeat((byte)block, 4096).ToArray()));
            await ForAllAsync(block => disk.ReadAsync(block * 8, new byte[4096]));
            Assert.That(await disk.FlushAsync(), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.DiscardAsync(Blocks * 8, 8), Is.EqualTo(BlkifStatus.Okay));
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(""));
        return (image, copy);
    }

    private static async Task ForAllAsync(Func<ulong, Task<BlkifStatus>> request)
    {
        BlkifStatus[] statuses = await Task.WhenAll(Enumerable.Range(0, Blocks).Select(block => request((ulong)block)));
        Assert.That(statuses, Is.All.EqualTo(BlkifStatus.Okay));
    }

    private async Task<(int Status, JsonElement Report)> ReplayAsync(string target, params string[] options)
    {
        (int status, string output, string errors) =
            await RunAsync(["replay", "--host", Layout.Root, "--json", Capture, target, .. options]);
        Assert.That(output, Is.Not.Empty, errors);
        return (status, JsonDocument.Parse(output).RootElement);
    }
}
