using System.Text.Json;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Hooks;

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
        Assert.That(lines[1], Does.Match(@"^\d+\.\d{6} dom7 xvda Read 16\+8 Okay \d+us 98f94189$"), "CRC32C of 4096 zeros");
        Assert.That(lines[2], Does.Match(@"^\d+\.\d{6} dom7 xvda Write 24\+1 IoError \d+us 00000000$"));
    }

    [Test]
    public async Task Json_lines_can_be_parsed()
    {
        await TraceAsync("json", "");
        JsonElement[] lines = [.. (await File.ReadAllLinesAsync(TracePath)).Select(line => JsonDocument.Parse(line).RootElement)];

        Assert.That(lines[0].GetProperty("event").GetString(), Is.EqualTo("Connected"));
        Assert.That(
            (lines[2].GetProperty("op").GetString(), lines[2].GetProperty("sector").GetInt64(), lines[2].GetProperty("domid").GetInt32()),
            Is.EqualTo(("Write", 24L, 7)));
    }

    [Test]
    public async Task Captures_are_read_back()
    {
        await TraceAsync("binary", "");
        byte[] capture = await File.ReadAllBytesAsync(TracePath);
        Assert.That(capture.AsSpan().StartsWith(TraceRecord.Magic), Is.True);
        Assert.That(capture, Has.Length.EqualTo(TraceRecord.Magic.Length + (2 * TraceRecord.Size)));

        TraceRecord read = TraceRecord.Read(capture.AsSpan(TraceRecord.Magic.Length));
        Assert.That(
            (read.Operation, read.Sector, read.SectorCount, read.Status, read.Checksum),
            Is.EqualTo((BlockOperation.Read, 16UL, 8L, BlockStatus.Okay, 0x98f94189u)));
        capture[^8] = 99;
        Assert.That(() => TraceRecord.Read(capture.AsSpan(^TraceRecord.Size)), Throws.TypeOf<InvalidDataException>());
    }

    [Test]
    public async Task A_trace_that_cannot_be_written_harms_no_request()
    {
        await using IBlockImage image = Open("trace(file=/dev/full)");
        for (int i = 0; i < 1000; i++) Assert.That(await ReadAsync(image, 0, new byte[512]), Is.EqualTo(BlockStatus.Okay));
        await image.DisposeAsync();
        Assert.That(Warnings, Has.Exactly(1).Contains("the trace /dev/full ends here"));
    }

    [TestCase("trace", "write trace(file=")]
    [TestCase("trace(file=x)", "not an absolute path")]
    [TestCase("trace(file=/nowhere/x)", "cannot be written")]
    [TestCase("trace(file=/tmp,format=xml)", "use format=text")]
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
        await WriteAsync(image, 24, new byte[512]);
    }
}
