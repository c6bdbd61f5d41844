using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using NUnit.Framework;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Tests.Control;

/// <summary>The control socket, and messages that no program of ours sends.</summary>
public sealed class ControlServerTests
{
    private string _path = "";
    private ControlServer _server = null!;
    private List<ControlRequest> _asked = null!;

    [SetUp]
    public void StartServer()
    {
        _path = Path.Combine(Path.GetTempPath(), $"ublkback-control-{Guid.NewGuid():N}.sock");
        _asked = [];
        _server = new ControlServer(
            _path,
            [
                new ControlCommand<ChangeRequest, DoneReply>(
                    "change", ChangeJson.Default.ChangeRequest, ReplyJson.Default.DoneReply, (request, _) =>
                    {
                        _asked.Add(request);
                        return Task.FromResult(new DoneReply());
                    }),
                new ControlCommand<ResumeRequest, DoneReply>(
                    "resume", ResumeJson.Default.ResumeRequest, ReplyJson.Default.DoneReply,
                    (_, _) => throw new CommandException("not today")),
                new ControlCommand<ListRequest, DoneReply>(
                    "list", ListJson.Default.ListRequest, ReplyJson.Default.DoneReply,
                    (_, _) => throw new InvalidOperationException("a bug")),
            ],
            new ControlServices(null!, null!, null!), NullLogger.Instance);
    }

    [TearDown]
    public void StopServer() => _server.Dispose();

    [Test]
    public void A_request_reaches_its_handler_whatever_the_order_of_its_fields()
    {
        Assert.That(
            Ask("""{"domid":3,"hook":"a(b=c)","command":"change","version":1}"""), Is.EqualTo("""{"version":1}"""));
        Assert.That(_asked, Is.EqualTo(new[] { new ChangeRequest("a(b=c)", 3) }));
    }

    [Test]
    public void Only_the_user_may_connect() => Assert.That(
        File.GetUnixFileMode(_path), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite));

    [TestCase("""{"version":2,"command":"change","hook":"a"}""", "has version 2 ",
        "speaks version 1: restart the daemon")]
    [TestCase("""{"version":"1","command":"change"}""", "has version \"1\" ", "speaks version 1: restart the daemon")]
    [TestCase("""{"command":"change","hook":"a"}""", "version 0 (none is given)",
        "speaks version 1: restart the daemon")]
    [TestCase("""{"version":1,"command":"frob"}""", "unknown command \"frob\"",
        "knows change, resume, list: correct it, or if a newer program sent it, restart the daemon")]
    [TestCase("""{"version":1}""", "has no command", "knows change, resume, list")]
    [TestCase("""{"version":1,"command":7}""", "has no command", "knows change, resume, list")]
    [TestCase("""{"version":1,"command":"\ud800"}""", "not JSON", "send one JSON object")]
    [TestCase("""{"version":1,"command":"change","hook":"a","domd":3}""", "field $.domd of 'change'", "CONTROL.md")]
    [TestCase("""{"version":1,"command":"change","hook":"a","domid":"x"}""", "field $.domid of 'change'", "CONTROL.md")]
    [TestCase("""{"version":1,"command":"change","hook":null}""", "field $.hook of 'change'", "CONTROL.md")]
    [TestCase("""{"version":1,"command":"change"}""", "a field of 'change'", "CONTROL.md")]
    [TestCase("""{"version":1,"command":"resume"}""", "not today", "")]
    [TestCase("""{"version":1,"command":"list"}""", "failed to carry out 'list'", "its log says more")]
    [TestCase("GET / HTTP/1.1", "not JSON", "send one JSON object")]
    [TestCase("", "not JSON", "send one JSON object")]
    [TestCase("[]", "not a JSON object", "\"command\":\"change\"")]
    [TestCase("null", "not a JSON object", "\"command\":\"change\"")]
    public void Another_message_gets_one_error_that_says_how_to_fix_it(string message, string what, string remedy)
    {
        using JsonDocument reply = JsonDocument.Parse(Ask(message));
        Assert.That(reply.RootElement.GetProperty("version").GetInt32(), Is.EqualTo(1));
        string error = reply.RootElement.GetProperty("error").GetString()!;
        Assert.That(error, Does.Contain(what).And.Contains(remedy).And.Not.Contain('\n'));
        Assert.That(_asked, Is.Empty);
        A_request_reaches_its_handler_whatever_the_order_of_its_fields();
    }

    [Test]
    public void Messages_without_an_end_get_one_error_too()
    {
        Assert.That(Ask("", end: ""), Does.Contain("closed before a message came"));
        Assert.That(Ask("{", end: ""), Does.Contain("has no newline"));
        Assert.That(Ask(new string('x', 17 << 20), end: ""), Does.Contain("longer than 16 MiB"));
        Assert.That(Ask(new string('[', 1 << 20)), Does.Contain("not JSON"));
        A_request_reaches_its_handler_whatever_the_order_of_its_fields();
    }

    private string Ask(string message, string end = "\n")
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(_path));
        try
        {
            socket.Send(Encoding.UTF8.GetBytes(message + end));
            socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException)
        {
            // The server has answered already and reads no more.
        }

        StringBuilder reply = new();
        byte[] buffer = new byte[4096];
        while (!reply.ToString().EndsWith('\n') && socket.Receive(buffer) is > 0 and int length)
            reply.Append(Encoding.UTF8.GetString(buffer, 0, length));
        return reply.ToString().TrimEnd('\n');
    }
}
