using System.Buffers.Binary;
using System.Net.Sockets;
using NUnit.Framework;
using Ublkback.Nbd.Protocol;
using Ublkback.Nbd.Server;

namespace Ublkback.Tests.Nbd;

/// <summary>Clients that say what they should not: they are refused or cut off, and others are served.</summary>
public sealed class NbdHostileClientTests : NbdFixture
{
    private static readonly (string Name, Func<RawClient, Task> Talk)[] Nonsense =
    [
        ("unknown flags", async client =>
        {
            await client.ReadAsync(18);
            await client.SendAsync([0xff, 0xff, 0xff, 0xff]);
        }),
        ("an option of another style", async client =>
        {
            await client.ReadAsync(18);
            await client.SendAsync([0, 0, 0, 0]);
            await client.SendOptionAsync(NbdOption.Go, []);
        }),
        ("no option", async client => { await client.GreetAsync(); await client.SendAsync(new byte[16]); }),
        ("an endless option", async client =>
        {
            await client.GreetAsync();
            await client.SendOptionAsync(NbdOption.Go, [], int.MaxValue);
        }),
        ("options without end", async client =>
        {
            await client.GreetAsync();
            for (int i = 0; i < 100; i++) await client.SendOptionAsync((NbdOption)77, []);
        }),
        ("another export", async client =>
        {
            await client.GreetAsync();
            await client.SendOptionAsync(NbdOption.ExportName, "other"u8.ToArray());
        }),
        ("no request", async client => { await client.ChooseAsync(); await client.SendAsync(new byte[28]); }),
        ("an endless write", async client =>
        {
            await client.ChooseAsync();
            await client.SendAsync(NbdCommand.Write, 0, uint.MaxValue);
        }),
    ];

    private static IEnumerable<string> Names => Nonsense.Select(case_ => case_.Name);

    [TestCaseSource(nameof(Names))]
    public async Task Nonsense_cuts_off_who_talks_it(string name)
    {
        await using NbdServer server = Serve();
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await Nonsense.Single(case_ => case_.Name == name).Talk(client);
        Assert.That(await client.IsCutOffAsync());
        await Open().WriteAsync(0, Bytes(1, 512));
        Assert.That(Warnings, Has.One.StartsWith("a client is gone: the client"));
    }

    [Test]
    public async Task Requests_that_make_no_sense_are_refused()
    {
        await using NbdServer server = Serve();
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.ChooseAsync();
        (NbdCommand Command, long Offset, uint Length, NbdError Error)[] requests =
        [
            (NbdCommand.Read, DiskSize, 512, NbdError.Invalid),
            (NbdCommand.Read, DiskSize - 512, 1024, NbdError.Invalid),
            (NbdCommand.Read, -512, 512, NbdError.Invalid),
            (NbdCommand.Read, long.MaxValue - 511, 512, NbdError.Invalid),
            (NbdCommand.Read, 1, 512, NbdError.Invalid),
            (NbdCommand.Read, 0, 0, NbdError.Invalid),
            (NbdCommand.Read, 0, uint.MaxValue - 511, NbdError.Invalid),
            (NbdCommand.Trim, 0, uint.MaxValue - 511, NbdError.NoSpace),
            (NbdCommand.WriteZeroes, DiskSize, 512, NbdError.NoSpace),
            (NbdCommand.BlockStatus, 0, 512, NbdError.Invalid),
            (NbdCommand.Flush, 0, 512, NbdError.Invalid),
            ((NbdCommand)99, 0, 512, NbdError.Invalid),
            (NbdCommand.Flush, 0, 0, NbdError.None),
            (NbdCommand.WriteZeroes, 512, 1024, NbdError.None),
        ];
        foreach ((NbdCommand command, long offset, uint length, NbdError error) in requests)
        {
            await client.SendAsync(command, offset, length);
            Assert.That(await client.ReadErrorAsync(), Is.EqualTo(error), $"{command} {length} at {offset}");
        }

        await client.SendAsync(NbdCommand.Write, DiskSize, 512, new byte[512]);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.NoSpace), "its data is read over");
        await client.SendAsync(NbdCommand.Write, 0, 512, Bytes(1, 512), flags: 1);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None));
        await client.SendAsync(NbdCommand.Read, 0, 512);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None));
        Assert.That(await client.ReadAsync(512), Is.EqualTo(Bytes(1, 512)));
    }

    [TestCase((int)NbdCommand.Read, 4, (int)NbdError.Invalid)] // one chunk, where none were negotiated
    [TestCase((int)NbdCommand.Read, 2, (int)NbdError.Invalid)]
    [TestCase((int)NbdCommand.Write, 2, (int)NbdError.Invalid)]
    [TestCase((int)NbdCommand.Write, 0x8000, (int)NbdError.Invalid)]
    [TestCase((int)NbdCommand.Trim, 2, (int)NbdError.Invalid)]
    [TestCase((int)NbdCommand.WriteZeroes, 0x10, (int)NbdError.Invalid)] // fast zeros
    [TestCase((int)NbdCommand.WriteZeroes, 8, (int)NbdError.Invalid)]
    [TestCase((int)NbdCommand.WriteZeroes, 3, (int)NbdError.None)]
    [TestCase((int)NbdCommand.Trim, 1, (int)NbdError.None)]
    [TestCase((int)NbdCommand.Write, 1, (int)NbdError.None)]
    public async Task Flags_that_were_not_offered_are_refused(int command, int flags, int error)
    {
        await using NbdServer server = Serve();
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.ChooseAsync();
        byte[] data = (NbdCommand)command == NbdCommand.Write ? Bytes(1, 4096) : [];
        await client.SendAsync((NbdCommand)command, 0, 4096, data, (ushort)flags);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo((NbdError)error));
        await client.SendAsync(NbdCommand.Flush, 0, 0);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None), "data of what is refused is read over");
    }

    [TestCase(false, 0, 0x16d)] // all but the one chunk
    [TestCase(true, 0, 0x107)] // read-only, flush and many connections
    [TestCase(true, 1, (int)NbdError.Invalid)]
    public async Task Only_what_the_client_can_use_is_offered(bool isReadOnly, int flags, int expected)
    {
        await using NbdServer server = Serve(
            new CountingImage(Disk) { Geometry = Disk.Geometry with { IsReadOnly = isReadOnly } });
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.GreetAsync();
        await client.SendOptionAsync(NbdOption.ExportName, []);
        int offered = BinaryPrimitives.ReadUInt16BigEndian((await client.ReadAsync(10)).AsSpan(8));
        await client.SendAsync(NbdCommand.Read, 0, 512, flags: (ushort)flags);
        NbdError error = await client.ReadErrorAsync();
        Assert.That(flags == 0 ? offered : (int)error, Is.EqualTo(expected));
    }

    [TestCase(0, 124)]
    [TestCase(1, 124)]
    [TestCase(2, 0)]
    public async Task Clients_of_all_newstyles_are_served(byte flags, int padding)
    {
        await using NbdServer server = Serve();
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.ReadAsync(18);
        await client.SendAsync([0, 0, 0, flags]);
        await client.SendOptionAsync(NbdOption.ExportName, []);
        await client.ReadAsync(10 + padding);
        await client.SendAsync(NbdCommand.Read, 0, 512);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None));
        Assert.That(await client.ReadAsync(512), Is.All.Zero);
    }

    [TestCase(1, false)]
    [TestCase(2, true)]
    public async Task Many_connections_are_offered_where_they_are_let_in(int maxClients, bool isOffered)
    {
        await using NbdServer server = Serve(
            options: new NbdServerOptions(new UnixDomainSocketEndPoint(SocketPath), MaxClients: maxClients));
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.GreetAsync();
        await client.SendOptionAsync(NbdOption.ExportName, []);
        int offered = BinaryPrimitives.ReadUInt16BigEndian((await client.ReadAsync(10)).AsSpan(8));
        Assert.That((offered & (int)NbdExportFlags.MultiConnection) != 0, Is.EqualTo(isOffered));
    }

    [Test]
    public async Task Requests_larger_than_all_others_are_served_in_parts()
    {
        await using NbdServer server = Serve();
        using RawClient client = await RawClient.ConnectAsync(SocketPath);
        await client.ChooseAsync();
        byte[] data = Bytes(3, DiskSize);
        await client.SendAsync(NbdCommand.Write, 0, DiskSize, data);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None));
        await client.SendAsync(NbdCommand.Read, 0, DiskSize);
        Assert.That(await client.ReadErrorAsync(), Is.EqualTo(NbdError.None));
        Assert.That(await client.ReadAsync(DiskSize), Is.EqualTo(data));
    }

    [Test]
    public async Task Random_bytes_hurt_nobody()
    {
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        await using NbdServer server = Serve();
        for (int i = 0; i < 300; i++)
        {
            using RawClient client = await RawClient.ConnectAsync(SocketPath);
            byte[] bytes = new byte[random.Next(200)];
            random.NextBytes(bytes);
            try
            {
                switch (i % 3)
                {
                    case 0:
                        await client.SendAsync(bytes);
                        break;
                    case 1:
                        await client.GreetAsync();
                        await client.SendOptionAsync(
                            (NbdOption)random.Next(1, 12), bytes,
                            random.Next(2) == 0 ? bytes.Length : random.Next(300));
                        break;
                    default:
                        await client.ChooseAsync();
                        await client.SendAsync(
                            (NbdCommand)random.Next(8), random.NextInt64(-1 << 20, DiskSize * 2),
                            (uint)random.Next(1 << 16), bytes, (ushort)random.Next(16));
                        break;
                }
            }
            catch (IOException)
            {
                // It has had enough of us.
            }
        }

        Assert.That(await Open().ReadAsync(0, 512), Has.Length.EqualTo(512));
    }
}
