using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Linux.Sockets;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Requests;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>The socket of an open VDI, and messages that no program of ours sends.</summary>
public sealed class VdiSocketTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;
    private const string Retry = "\"retry\":true}";

    private ImageDriver? _disk;

    [SetUp]
    public void OpenDisk()
    {
        Create("web", DiskSize);
        _disk = Open("web");
        ((VdiImage)_disk.Image).UseOn(Worker);
    }

    [TearDown]
    public async Task CloseDisk()
    {
        if (_disk is not null) await _disk.Image.DisposeAsync();
    }

    [Test]
    public async Task Each_command_is_carried_out_and_replied()
    {
        byte[] data = new byte[DiskSize];
        new Random(1).NextBytes(data);
        await _disk!.WriteAsync(0, data);
        Assert.That(
            Ask("""{"snapshot":"one","command":"snapshot","version":1}"""), Is.EqualTo("""{"version":1}"""),
            "the order of fields has no meaning");
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "one" }));
        Assert.That(
            Ask("""{"version":1,"command":"snapshots"}"""),
            Does.StartWith("{\"version\":1,\"snapshots\":[\"").And.EndsWith($"\"],\"sizeBytes\":{DiskSize}}}"));
        await _disk.WriteAsync(0, new byte[DiskSize]);
        Assert.That(
            Ask("""{"version":1,"command":"rollback","snapshot":"one","live":true}"""),
            Is.EqualTo("""{"version":1,"kept":"before-rollback-2"}"""));
        await HoldsAsync(_disk, data, "rolled back");
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "one", "before-rollback-2" }));
        Assert.That(Ask("""{"version":1,"command":"delete","snapshot":"one"}"""), Is.EqualTo("""{"version":1}"""));
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "before-rollback-2" }));
        Assert.That(
            Ask($$"""{"version":1,"command":"resize","sizeBytes":{{2 * DiskSize}}}"""),
            Is.EqualTo("""{"version":1}"""));
        Assert.That(Vdis.Describe("web").SizeBytes, Is.EqualTo(2 * DiskSize));
        for (int i = 0; i < 3; i++) await _disk.WriteAsync(0, data);
        Assert.That(NumberOf("collect", "freedBytes"), Is.Positive);
        for (int block = 0; block < DiskSize / 4096; block += 2) await _disk.WriteAsync(block * 4096, new byte[4096]);
        Assert.That(NumberOf("compact", "writtenBytes"), Is.Positive);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public void Only_the_user_may_connect() => Assert.That(
        File.GetUnixFileMode(SocketPath), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite));

    [TestCase("""{"command":"snapshot","snapshot":"x","sizeBytes":0}""", "has version 0 (none is given) of the VDI",
        "the process that holds the VDI speaks version 1: restart that process")]
    [TestCase("""{"version":2,"command":"snapshot","snapshot":"x"}""", "has version 2 ", "speaks version 1: restart")]
    [TestCase("""{"version":"1","command":"snapshot"}""", "has version \"1\" ", "speaks version 1: restart")]
    [TestCase("""{"version":1,"command":"grow"}""", "unknown command \"grow\"",
        "knows snapshot, snapshots, delete, rollback, resize, collect, compact: correct it, or if a newer")]
    [TestCase("""{"version":1}""", "has no command", "knows snapshot, snapshots, ")]
    [TestCase("""{"version":1,"command":7}""", "has no command", "knows snapshot, snapshots, ")]
    [TestCase("""{"version":1,"command":"snapshot"}""", "a field of 'snapshot'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"snapshot","snapshot":null}""", "field $.snapshot of 'snapshot'",
        "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"snapshot","snapshot":"x","a":1}""", "field $.a of 'snapshot'",
        "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"snapshots","a":1}""", "field $.a of 'snapshots'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"delete","snapshot":"x","a":1}""", "field $.a of 'delete'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"rollback","snapshot":"x","a":1}""", "field $.a of 'rollback'",
        "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"resize","sizeBytes":512,"a":1}""", "field $.a of 'resize'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"collect","a":1}""", "field $.a of 'collect'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"compact","a":1}""", "field $.a of 'compact'", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"snapshot","snapshot":"a/b"}""", "'a/b' is no name", "letters")]
    [TestCase("""{"version":1,"command":"delete","snapshot":"x"}""", "has no snapshot x", "ublkback vdi snapshots")]
    [TestCase("""{"version":1,"command":"rollback","snapshot":"x","live":true}""", "has no snapshot x",
        "ublkback vdi snapshots")]
    [TestCase("""{"version":1,"command":"rollback","snapshot":"x"}""", "the VDI is in use", "\"live\":true")]
    [TestCase("""{"version":1,"command":"resize","sizeBytes":4096}""", "cannot shrink while it is in use", "detach")]
    [TestCase("""{"version":1,"command":"resize","sizeBytes":-512}""", "cannot have -512 bytes", "multiple of 512")]
    [TestCase("""{"version":1,"command":"resize","sizeBytes":"512"}""", "field $.sizeBytes of", "VDI-SOCKET.md")]
    [TestCase("""{"version":1,"command":"\ud800"}""", "not JSON", "send one JSON object")]
    [TestCase("GET / HTTP/1.1", "not JSON", "send one JSON object")]
    [TestCase("", "not JSON", "send one JSON object")]
    [TestCase("[]", "not a JSON object", "\"command\":\"snapshot\"")]
    [TestCase("null", "not a JSON object", "\"command\":\"snapshot\"")]
    public void Another_message_gets_one_error_that_says_how_to_fix_it(string message, string what, string remedy)
    {
        Assert.That(ErrorOf(Ask(message)), Does.Contain(what).And.Contains(remedy).And.Not.Contain('\n'));
        Answers();
        Assert.That(SnapshotNames(), Is.Empty);
        Assert.That(Vdis.Describe("web").SizeBytes, Is.EqualTo(DiskSize));
    }

    [Test]
    public void Messages_without_an_end_get_one_error_too()
    {
        Assert.That(ErrorOf(Ask("", end: "")), Does.Contain("closed before a message came"));
        Assert.That(ErrorOf(Ask("{", end: "")), Does.Contain("has no newline"));
        Answers();
    }

    [Test]
    public void A_line_that_is_too_long_is_refused([Values("", "\n")] string end)
    {
        const string Request = """{"version":1,"command":"snapshots"}""";
        Assert.That(Ask(Request.PadRight(64 << 10)), Does.StartWith("""{"version":1,"snapshots":"""));
        Assert.That(
            ErrorOf(Ask(Request.PadRight((64 << 10) + 1), end)), Does.Contain("longer than 64 KiB: send one JSON"));
        Assert.That(ErrorOf(Ask(new string('[', 1 << 20), end)), Does.Contain("longer than 64 KiB"));
        Answers();
    }

    [Test]
    public async Task A_client_that_closes_early_ends_nothing()
    {
        using (Socket silent = Connect())
        using (Socket half = Connect())
        using (Socket whole = Connect())
        {
            half.Send("{\"version\":1,"u8);
            whole.Send("{\"version\":1,\"command\":\"snapshot\",\"snapshot\":\"left\"}\n"u8);
        }

        using CancellationTokenSource limit = new(Soon);
        const string None = "\"snapshots\":[],";
        while (Ask("""{"version":1,"command":"snapshots"}""").Contains(None, StringComparison.Ordinal))
            await Task.Delay(1, limit.Token);
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "left" }), "the complete request was carried out");
        Answers();
        Assert.That(Warnings, Is.Empty);
    }

    [TestCase("""{"sizeBytes":4096}""", "speaks version 0 of the VDI protocol and this program version 1")]
    [TestCase("""{"version":2,"error":"the request has version 1 of the VDI protocol"}""", "has version 1 of the VDI")]
    [TestCase("""{"version":1,"snapshots":["AQI="],"sizeBytes":4096}""", "does not have 256 bytes: restart that")]
    [TestCase(null, "no complete reply came")]
    public async Task A_process_of_another_version_is_one_error_for_each_command(string? reply, string expected)
    {
        await _disk!.Image.DisposeAsync();
        _disk = null;
        byte[] answer = Encoding.UTF8.GetBytes(reply ?? "");
        using LineServer other = new(
            SocketPath, 64 << 10, _ => reply is null ? throw new IOException("lost") : Task.FromResult(answer),
            _ => answer, answer);
        Assert.That(() => Vdis.Describe("web"), Throws.InstanceOf<TargetException>().With.Message.Contains(expected));
        if (reply is null || !reply.Contains("AQI=", StringComparison.Ordinal))
            Assert.That(
                async () => await Vdis.SnapshotAsync("web", "s"),
                Throws.InstanceOf<TargetException>().With.Message.Contains(expected));
    }

    [Test]
    public async Task A_request_that_comes_too_late_is_told_to_try_again()
    {
        TaskCompletionSource goOn = new(), isHeld = new();
        VdiImage image = (VdiImage)_disk!.Image;
        Task held = image.HoldAsync(async () =>
        {
            isHeld.SetResult();
            await goOn.Task;
            return true;
        });
        await isHeld.Task.WaitAsync(Soon);
        using Socket late = Connect();
        Task closing = image.DisposeAsync().AsTask();
        _disk = null;
        Assert.That(File.Exists(SocketPath), Is.False);
        byte[] reply = await AskAsync(late, "{\"version\":1,\"command\":\"snapshot\",\"snapshot\":\"late\"}\n");
        Assert.That(Encoding.UTF8.GetString(reply), Does.Contain("did not carry the request out").And.Contains(Retry));
        goOn.SetResult();
        await held.WaitAsync(Soon);
        await closing.WaitAsync(Soon);
        Assert.That(SnapshotNames(), Is.Empty);
    }

    [Test]
    public async Task A_request_that_a_closing_process_refuses_is_sent_again_or_carried_out_here()
    {
        await _disk!.Image.DisposeAsync();
        _disk = null;
        int asked = 0;
        LineServer closing = null!;
        byte[] postponed = VdiProtocol.Messages.Postpone();
        closing = new(
            SocketPath, 64 << 10,
            _ =>
            {
                asked++;
                closing.Dispose();
                return Task.FromResult(postponed);
            },
            _ => postponed, postponed);
        await Vdis.SnapshotAsync("web", "s").WaitAsync(Soon);
        Assert.That((asked, SnapshotNames()), Is.EqualTo((1, new[] { "s" })));
    }

    // The process that listens at the path later is another one, which did not close the VDI for the first.
    [Test]
    public async Task A_request_to_a_process_that_was_killed_and_restarted_is_not_sent_again()
    {
        await _disk!.Image.DisposeAsync();
        _disk = null;
        int asked = 0;
        using Socket killed = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        killed.Bind(new UnixDomainSocketEndPoint(SocketPath));
        killed.Listen();
        Task snapshot = Vdis.SnapshotAsync("web", "s");
        Socket client = await killed.AcceptAsync().WaitAsync(Soon);
        Assert.That(await client.ReceiveAsync(new byte[4096]).WaitAsync(Soon), Is.Positive);
        using LineServer restarted = new(
            SocketPath, 64 << 10,
            _ =>
            {
                asked++;
                return Task.FromResult("""{"version":1}"""u8.ToArray());
            },
            _ => [], []);
        client.Dispose();
        Assert.That(
            async () => await snapshot.WaitAsync(Soon),
            Throws.InstanceOf<TargetException>().With.Message.Contains("it is not known whether 'snapshot' was carried")
                .And.Message.Contains("'ublkback vdi snapshots NAME' shows whether"));
        Assert.That(asked, Is.Zero);
    }

    // Some have connected, and are not accepted yet; some have sent their request.
    [Test]
    public async Task All_who_are_connected_when_a_process_closes_the_vdi_get_a_reply()
    {
        Socket[] clients = [.. Enumerable.Range(0, 64).Select(_ => Connect())];
        Task closing = _disk!.Image.DisposeAsync().AsTask();
        _disk = null;
        foreach (Socket client in clients)
        {
            byte[] reply = await AskAsync(client, "{\"version\":1,\"command\":\"snapshot\",\"snapshot\":\"late\"}\n");
            Assert.That(Encoding.UTF8.GetString(reply), Does.Contain(Retry));
            client.Dispose();
        }

        await closing.WaitAsync(Soon);
    }

    [Test]
    public async Task A_command_waits_for_a_process_that_opens_or_closes_the_vdi()
    {
        ((VdiImage)_disk!.Image).Parts.Door!.Dispose(); // it has the VDI, and does not answer
        Task snapshot = Task.Run(() => Vdis.SnapshotAsync("web", "s"));
        await _disk.Image.DisposeAsync();
        _disk = null;
        await snapshot.WaitAsync(Soon);
        Assert.That(SnapshotNames(), Is.EqualTo(new[] { "s" }));
    }

    [Test]
    public async Task A_process_that_does_not_answer_costs_its_own_vdi_alone()
    {
        Create("other", DiskSize);
        await _disk!.Image.DisposeAsync();
        _disk = null;
        TaskCompletionSource<byte[]> never = new();
        using LineServer silent = new(SocketPath, 64 << 10, _ => never.Task, _ => [], []);
        List<string> failures = [];
        IReadOnlyList<VdiInfo> all =
            Vdis.DescribeAll((name, why) => failures.Add($"{name}: {why.Message}"), TimeSpan.FromMilliseconds(1));
        Assert.That(all.Select(info => info.Name), Is.EqualTo(new[] { "other" }));
        Assert.That(failures, Has.One.StartsWith("web: ").And.One.Contains("has not answered"));
        never.SetResult([]);
    }

    private static async Task<byte[]> AskAsync(Socket socket, string message)
    {
        byte[] buffer = new byte[4096];
        try
        {
            socket.Send(Encoding.UTF8.GetBytes(message));
        }
        catch (SocketException)
        {
            // The server has replied already.
        }

        return buffer[..await socket.ReceiveAsync(buffer).WaitAsync(Soon)];
    }

    private string SocketPath => Path.Combine(Folder, "doors", "000001");

    private string[] SnapshotNames() => [.. Vdis.Describe("web").Snapshots.Select(snapshot => snapshot.Name)];

    private void Answers() => Assert.That(
        Ask("""{"version":1,"command":"snapshots"}"""), Does.StartWith("""{"version":1,"snapshots":["""));

    private long NumberOf(string command, string field)
    {
        using JsonDocument reply = JsonDocument.Parse(Ask($$"""{"version":1,"command":"{{command}}"}"""));
        return reply.RootElement.GetProperty(field).GetInt64();
    }

    private static string ErrorOf(string text)
    {
        using JsonDocument reply = JsonDocument.Parse(text);
        Assert.That(reply.RootElement.EnumerateObject().First().Name, Is.EqualTo("version"));
        Assert.That(reply.RootElement.GetProperty("version").GetInt32(), Is.EqualTo(1));
        return reply.RootElement.GetProperty("error").GetString()!;
    }

    private Socket Connect()
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(SocketPath));
        socket.ReceiveTimeout = (int)Soon.TotalMilliseconds;
        return socket;
    }

    private string Ask(string message, string end = "\n")
    {
        using Socket socket = Connect();
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
