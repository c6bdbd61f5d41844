using System.Text.Json;
using NUnit.Framework;
using Ublkback.Commands.Disks;
using Ublkback.Control;

using Ublkback.Tests.House;

namespace Ublkback.Tests.Control;

/// <summary>Requests and replies as JSON.</summary>
public sealed class ControlRequestTests
{
    private static readonly VbdReport Vbd = new(
        "vbd", 3, "xvda", 51712, "/a.img", "rw", "Connected", "Connected", 4096, 1, 32, null, 2, 1.5, 9, 0, null, null);

    [Test]
    public void A_request_is_read_as_it_was_written()
    {
        RoundTrip(ListCommand.Control, new ListRequest(), """{"version":1,"command":"list"}""");
        RoundTrip(StatsCommand.Control, new StatsRequest(), """{"version":1,"command":"stats"}""");
        RoundTrip(
            ResizeCommand.Control, new ResizeRequest(3, "xvda", 1L << 40),
            """{"version":1,"command":"resize","domid":3,"device":"xvda","sizeBytes":1099511627776}""");
        RoundTrip(ResumeCommand.Control, new ResumeRequest(), """{"version":1,"command":"resume"}""");
        RoundTrip(
            ChangeCommand.Control, new ChangeRequest("throttle(iops=5)", 3),
            """{"version":1,"command":"change","hook":"throttle(iops=5)","domid":3}""");
        RoundTrip(
            HotplugAddCommand.Control, new HotplugAddRequest("backend/vbd/1/51712"),
            """{"version":1,"command":"hotplug-add","xenbusPath":"backend/vbd/1/51712"}""");
    }

    [Test]
    public void A_reply_is_read_as_it_was_written()
    {
        string text = JsonSerializer.Serialize(
            new DaemonReply([Vbd], new ProcessReport(1, 2, 3, 4, 5)), ReplyJson.Default.DaemonReply);
        DaemonReply read = JsonSerializer.Deserialize(text, ReplyJson.Default.DaemonReply)!;
        Assert.That(text, Does.StartWith("""{"version":1,"vbds":[{"kind":"vbd","domid":3,"""));
        Assert.That(read.Vbds, Is.EqualTo(new[] { Vbd }));
        Assert.That(read.Process, Is.EqualTo(new ProcessReport(1, 2, 3, 4, 5)));
    }

    [Test]
    public void Each_command_has_a_name_of_its_own_and_a_line_in_the_documentation()
    {
        string documentation = File.ReadAllText(Path.Combine(Repository.Root, "docs/CONTROL.md"));
        Assert.That(ControlCommands.All.Select(command => command.Name), Is.Unique);
        foreach (ControlCommand command in ControlCommands.All)
            Assert.That(documentation, Does.Contain($"\"command\":\"{command.Name}\""), command.Name);
    }

    private static void RoundTrip<TRequest, TReply>(
        ControlCommand<TRequest, TReply> command, TRequest request, string expected)
        where TRequest : ControlRequest
        where TReply : ControlReply
    {
        string text = JsonSerializer.Serialize(request, command.Requests);
        Assert.That(text, Is.EqualTo(expected));
        Assert.That(JsonSerializer.Deserialize(text, command.Requests), Is.EqualTo(request));
        Assert.That(request.Command, Is.EqualTo(command.Name));
    }
}
