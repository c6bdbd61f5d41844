using System.Text;
using System.Text.Json;
using NUnit.Framework;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Requests;
using Ublkback.Tests.House;

namespace Ublkback.Tests.Parallax;

/// <summary>Requests and replies of the VDI socket as JSON.</summary>
public sealed class VdiRequestTests
{
    [Test]
    public void A_request_is_read_as_it_was_written()
    {
        RoundTrip(
            SnapshotHandler.Instance, new SnapshotRequest("s"),
            """{"version":1,"command":"snapshot","snapshot":"s"}""");
        RoundTrip(SnapshotsHandler.Instance, new SnapshotsRequest(), """{"version":1,"command":"snapshots"}""");
        RoundTrip(
            DeleteHandler.Instance, new DeleteRequest("s"), """{"version":1,"command":"delete","snapshot":"s"}""");
        RoundTrip(
            RollbackHandler.Instance, new RollbackRequest("s", 512),
            """{"version":1,"command":"rollback","snapshot":"s","minSizeBytes":512}""");
        RoundTrip(
            ResizeHandler.Instance, new ResizeRequest(1L << 40),
            """{"version":1,"command":"resize","sizeBytes":1099511627776}""");
        RoundTrip(CollectHandler.Instance, new CollectRequest(), """{"version":1,"command":"collect"}""");
        RoundTrip(CompactHandler.Instance, new CompactRequest(), """{"version":1,"command":"compact"}""");
    }

    [Test]
    public void A_reply_is_read_as_it_was_written()
    {
        ReplyRoundTrip(SnapshotHandler.Instance, new VdiDoneReply(), """{"version":1}""");
        ReplyRoundTrip(DeleteHandler.Instance, new VdiDoneReply(), """{"version":1}""");
        ReplyRoundTrip(ResizeHandler.Instance, new VdiDoneReply(), """{"version":1}""");
        ReplyRoundTrip(RollbackHandler.Instance, new RollbackReply("s"), """{"version":1,"kept":"s"}""");
        ReplyRoundTrip(CollectHandler.Instance, new CollectReply(4096), """{"version":1,"freedBytes":4096}""");
        ReplyRoundTrip(CompactHandler.Instance, new CompactReply(8192), """{"version":1,"writtenBytes":8192}""");
        SnapshotsReply snapshots = Read(
            SnapshotsHandler.Instance, """{"version":1,"snapshots":["AQI="],"sizeBytes":512}""");
        Assert.That(snapshots.SizeBytes, Is.EqualTo(512));
        Assert.That(snapshots.Snapshots, Is.EqualTo(new byte[][] { [1, 2] }));
    }

    [Test]
    public void A_reply_may_have_fields_that_a_later_program_added() => Assert.Multiple(() =>
    {
        Read(SnapshotHandler.Instance, """{"version":1,"more":1}""");
        Read(SnapshotsHandler.Instance, """{"version":1,"snapshots":[],"sizeBytes":512,"more":1}""");
        Read(RollbackHandler.Instance, """{"version":1,"kept":"s","more":1}""");
        Read(CollectHandler.Instance, """{"version":1,"freedBytes":0,"more":1}""");
        Read(CompactHandler.Instance, """{"version":1,"writtenBytes":0,"more":1}""");
    });

    [TestCase("""{"sizeBytes":512}""", "speaks version 0 of the VDI protocol and this program version 1")]
    [TestCase("""{"sizeBytes":512}""", "unknown whether 'rollback' was carried out: restart that process")]
    [TestCase("""{"version":2,"kept":"s"}""", "speaks version 2 of the VDI protocol and this program version 1")]
    [TestCase("""{"version":2,"error":"I speak version 2"}""", "I speak version 2")]
    [TestCase("""{"version":1,"kept":7}""", "to 'rollback' has an unexpected field $.kept: restart")]
    [TestCase("""{"version":1}""", "to 'rollback' is not JSON of the expected form: restart")]
    [TestCase("""{"version":1,"error":"\ud800"}""", "to 'rollback' is not JSON of the expected form: restart")]
    [TestCase("[]", "is not a JSON object: restart")]
    [TestCase("", "is not JSON of the expected form: restart")]
    public void A_reply_of_another_program_is_one_error(string reply, string expected) => Assert.That(
        () => Read(RollbackHandler.Instance, reply),
        Throws.InstanceOf<RefusedMessageException>().With.Message.Contains(expected));

    [Test]
    public void A_reply_that_is_too_long_is_one_error() => Assert.That(
        () => Read(RollbackHandler.Instance, new string(' ', (16 << 20) + 1)),
        Throws.InstanceOf<RefusedMessageException>().With.Message.Contains("to 'rollback' is too long"));

    [Test]
    public void Each_command_has_a_name_of_its_own_and_a_line_in_the_documentation()
    {
        string documentation = File.ReadAllText(Path.Combine(Repository.Root, "docs/VDI-SOCKET.md"));
        Assert.That(VdiHandlers.All.Select(handler => handler.Command), Is.Unique);
        foreach (VdiHandler handler in VdiHandlers.All)
            Assert.That(documentation, Does.Contain($"\"command\":\"{handler.Command}\""), handler.Command);
    }

    private static void RoundTrip<TRequest, TReply>(
        VdiHandler<TRequest, TReply> handler, TRequest request, string expected)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        string text = JsonSerializer.Serialize(request, handler.Requests);
        Assert.That(text, Is.EqualTo(expected));
        Assert.That(JsonSerializer.Deserialize(text, handler.Requests), Is.EqualTo(request));
        Assert.That(request.Command, Is.EqualTo(handler.Command));
        Assert.That(VdiHandlers.All, Does.Contain(handler));
    }

    private static void ReplyRoundTrip<TRequest, TReply>(
        VdiHandler<TRequest, TReply> handler, TReply reply, string expected)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        string text = JsonSerializer.Serialize(reply, handler.Replies);
        Assert.That(text, Is.EqualTo(expected));
        Assert.That(Read(handler, text), Is.EqualTo(reply));
    }

    private static TReply Read<TRequest, TReply>(VdiHandler<TRequest, TReply> handler, string reply)
        where TRequest : VdiRequest
        where TReply : VdiReply =>
        VdiProtocol.Messages.ReadReply(Encoding.UTF8.GetBytes(reply), handler.Command, handler.Replies);
}
