using System.Text.Json;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Hooks.Trace;

namespace Ublkback.Tests.Hooks;

public sealed class TraceTests : HookFixture
{
    private string TracePath => Path.Combine(Scratch, "disk.trace");

    [Test]
    public void A_known_checksum() => Assert.That(Crc32C.Of("123456789"u8), Is.EqualTo(0xE3069283));

    [Test]
    public async Task Text_has_a_line_for_each_request_and_event()
    {
        await TraceAsync("text", "+fault(op=write)");
        string[] lines = await File.ReadAllLinesAsync(TracePath);

        Assert.That(lines, Has.Length.EqualTo(3));
        Assert.That(lines[0], Does.Match(@"^\d+\.\d{6} dom7 xvda Connected$"));
        Assert.That(
            lines[1], Does.Match(@"^\d+\.\d{6} dom7 xvda Read 16\+8 Okay \d+us 98f94189$"), "CRC32C of 4096 zeros");
        Assert.That(lines[2], Does.Match(@"^\d+\.\d{6} dom7 xvda Write 24\+1 IoError \d+us 00000000$"));
    }

    [Test]
    public async Task Json_lines_can_be_parsed()
    {
        await TraceAsync("json", "");
        JsonElement[] lines = [
            .. (await File.ReadAllLinesAsync(TracePath)).Select(line => JsonDocument.Parse(line).RootElement)];

        Assert.That(lines[0].GetProperty("event").GetString(), Is.EqualTo("Connected"));
        Assert.That(
            (lines[2].GetProperty("op").GetString(), lines[2].GetProperty("sector").GetInt64(),
                lines[2].GetProperty("domid").GetInt32()),
            Is.EqualTo(("Write", 24L, 7)));
    }

    [Test]
    public async Task Captures_are_read_back([Values] bool withData)
    {
        await TraceAsync($"binary,data={(withData ? "yes" : "no")}", "");
        await TraceAsync("binary", "");
        using TraceCapture capture = TraceCapture.Open(TracePath);

        Assert.That((capture.Requests.Count, capture.Lost, capture.IsDamaged), Is.EqualTo((4, 0, false)));
        TraceRecord read = capture.Requests[0].Record, write = capture.Requests[1].Record;
        Assert.That(
            (read.Operation, read.Sector, read.SectorCount, read.Status, read.Checksum),
            Is.EqualTo((BlockOperation.Read, 16UL, 8L, BlockStatus.Okay, 0x98f94189u)));
        Assert.That((write.Operation, write.Sector), Is.EqualTo((BlockOperation.Write, 24UL)));
        Assert.That(capture.Requests.Select(entry => entry.Opening), Is.EqualTo([0, 0, 1, 1]));
        Assert.That(capture.Requests.Select(entry => entry.HasData), Is.EqualTo([false, withData, false, false]));
        if (!withData) return;
        byte[] data = new byte[512];
        await capture.ReadDataAsync(capture.Requests[1], data);
        Assert.That(data, Is.All.EqualTo(0x5a));
    }

    [TestCase(TraceCapture.HeadSize + 7, 2)] // in the first record
    [TestCase(TraceCapture.HeadSize + TraceRecord.Size + TraceRecord.Size + 100, 3)] // in the data of the second
    public async Task What_is_cut_off_hides_nothing_that_comes_later(int left, int requests)
    {
        await TraceAsync("binary,data=yes", "");
        using (FileStream file = File.OpenWrite(TracePath)) file.SetLength(left);
        await TraceAsync("binary,data=yes", "");
        using TraceCapture capture = TraceCapture.Open(TracePath);

        Assert.That((capture.Requests.Count, capture.IsDamaged), Is.EqualTo((requests, true)));
    }

    [Test]
    public void What_is_no_capture_is_refused()
    {
        File.WriteAllText(TracePath, new string('x', 100));
        Assert.That(
            () => TraceCapture.Open(TracePath),
            Throws.TypeOf<InvalidDataException>().With.Message.Contains("it is no capture"));
    }

    [Test]
    public void Captures_made_of_noise_are_read_or_refused()
    {
        Random random = new(41);
        byte[] bytes = new byte[4096];
        for (int i = 0; i < 300; i++)
        {
            random.NextBytes(bytes);
            for (int at = 0; at + TraceRecord.Size < bytes.Length; at += TraceRecord.Size)
                if (random.Next(4) > 0) bytes.AsSpan(at + 32, 8).Clear();
            TraceCapture.Magic.CopyTo(bytes);
            File.WriteAllBytes(TracePath, bytes);
            using TraceCapture capture = TraceCapture.Open(TracePath);
            Assert.That(capture.Requests, Has.All.Matches<TraceCapture.Entry>(entry => entry.Record.SectorCount >= 0));
        }
    }

    [Test]
    public async Task A_trace_that_cannot_be_written_harms_no_request()
    {
        await using IBlockImage image = Open("trace(file=/dev/full)");
        for (int i = 0; i < 1000; i++)
            Assert.That(await ReadAsync(image, 0, new byte[512]), Is.EqualTo(BlockStatus.Okay));
        await image.DisposeAsync();
        Assert.That(Warnings, Has.Exactly(1).Contains("the trace /dev/full ends here"));
    }

    [TestCase("trace", "write trace(file=")]
    [TestCase("trace(file=x)", "not an absolute path")]
    [TestCase("trace(file=/nowhere/x)", "cannot be written")]
    [TestCase("trace(file=/tmp,format=xml)", "use format=text")]
    [TestCase("trace(file=/tmp/x,data=yes)", "data=yes needs format=binary")]
    public void Says_what_is_wrong(string hook, string part) =>
        Assert.That(() => Open(hook), Throws.TypeOf<TargetException>().With.Message.Contains(part));

    private async Task TraceAsync(string format, string below)
    {
        await using IBlockImage image = Open($"trace(file={TracePath},format={format}){below}");
        await OnWorker(() =>
        {
            image.OnEvent(DiskEvent.Connected);
            return Task.FromResult(0);
        });
        await ReadAsync(image, 16, new byte[4096]);
        await WriteAsync(image, 24, [.. Enumerable.Repeat((byte)0x5a, 512)]);
    }
}
