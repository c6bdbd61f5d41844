using System.Buffers.Binary;
using System.Net.Sockets;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Nbd;

/// <summary>Servers that lie: nothing they say is believed beyond what was asked, and the next one is tried.</summary>
public sealed class NbdHostileServerTests : NbdFixture
{
    private static readonly (string Name, Func<byte[], byte[]> Answer, string Warning)[] Lies =
    [
        ("no reply", _ => new byte[16], "where a reply was to begin"),
        ("twice", cookie => [.. Simple(cookie), .. new byte[512], .. Simple(cookie)], "for the second time"),
        ("what was not asked", _ => [.. Simple(new byte[8]), .. new byte[512]], "what it was not asked"),
        ("a chunk before", cookie => [.. Chunk(cookie, 1, 8 + 512), .. Number(0), .. new byte[512]],
            "the server sent 512 bytes at 0"),
        ("a chunk too long", cookie => [.. Chunk(cookie, 1, 8 + 1024), .. Number(4096), .. new byte[1024]],
            "the server sent 1024 bytes"),
        ("a chunk far away", cookie => [.. Chunk(cookie, 1, 8 + 512), .. Number(long.MinValue), .. new byte[512]],
            "the server sent 512 bytes"),
        ("too little", cookie => [.. Chunk(cookie, 1, 8 + 256), .. Number(4096), .. new byte[256]],
            "answered a read of 512 bytes with 256"),
        ("nothing", cookie => Chunk(cookie, 0, 0), "answered a read of 512 bytes with 0"),
        ("a hole of a wrong length", cookie => [.. Chunk(cookie, 2, 20), .. new byte[20]],
            "described a hole in 20 bytes"),
        ("a hole too large", cookie => [.. Chunk(cookie, 2, 12), .. Number(4096), 0xff, 0, 0, 0],
            "the server sent 4278190080 bytes"),
        ("an endless error", cookie => Chunk(cookie, 0x8001, int.MaxValue), "described an error in 2147483647 bytes"),
        ("an error that is none", cookie => [.. Chunk(cookie, 0x8001, 6), .. new byte[6]], "an error is none"),
        ("an unknown chunk", cookie => [.. Chunk(cookie, 77, 4), 0, 0, 0, 0], "a chunk of kind 77"),
        ("goodbye", cookie => [.. Chunk(cookie, 0x8001, 6), 0, 0, 0, 108, 0, 0], "the server ends"),
        ("silence", _ => [], "closed the connection"),
    ];

    private static IEnumerable<string> Names => Lies.Select(lie => lie.Name);

    [TestCaseSource(nameof(Names))]
    public async Task A_lie_ends_the_connection_and_the_request_is_asked_again(string name)
    {
        (_, Func<byte[], byte[]> answer, string warning) = Lies.Single(lie => lie.Name == name);
        using Socket listener = Listen();
        Task lying = Task.Run(async () =>
        {
            using NetworkStream stream = await NegotiateAsync(listener, DiskSize);
            byte[] request = new byte[28];
            await stream.ReadExactlyAsync(request);
            await stream.WriteAsync(answer(request[8..16]));
            if (name == "silence") return;
            while (await stream.ReadAsync(request) > 0) { } // until the client has had enough
        });
        ImageDriver disk = Open();
        Task<byte[]> reading = disk.ReadAsync(4096, 512);
        await lying.WaitAsync(Soon);
        // The second answer of a server that answers twice comes when the first was believed.
        using NetworkStream honest = await NegotiateAsync(listener, DiskSize).WaitAsync(Soon);
        Task<byte[]> again = name == "twice" ? disk.ReadAsync(4096, 512) : reading;
        byte[] asked = new byte[28];
        await honest.ReadExactlyAsync(asked).AsTask().WaitAsync(Soon);
        await honest.WriteAsync(new byte[][] { [.. Simple(asked[8..16]), .. Bytes(9, 512)] }[0]);
        Assert.That(await again, Is.EqualTo(Bytes(9, 512)));
        Assert.That(Warnings, Has.Some.Contains(warning));
    }

    [Test]
    public async Task A_part_that_comes_twice_leaves_nothing_of_others_in_the_rest()
    {
        using Socket listener = Listen();
        Task<NetworkStream> negotiating = NegotiateAsync(listener, DiskSize);
        ImageDriver disk = Open();
        byte[] data = [.. Enumerable.Repeat((byte)0xff, 512)]; // what the memory held before
        Task<BlockStatus> reading = disk.TryReadAsync(4096, data);
        using NetworkStream lying = await negotiating.WaitAsync(Soon);
        byte[] asked = new byte[28];
        await lying.ReadExactlyAsync(asked).AsTask().WaitAsync(Soon);
        byte[] part = [.. Chunk(asked[8..16], 1, 8 + 256), .. Number(4096), .. Bytes(9, 256)];
        byte[] first = [.. part];
        first[5] = 0; // not the last chunk
        await lying.WriteAsync(new byte[][] { [.. first, .. part] }[0]);
        Assert.That(await reading, Is.EqualTo(BlockStatus.Okay));
        Assert.That(data[256..], Is.All.Zero);
    }

    [TestCase(-1L, "has -1 bytes")]
    [TestCase(0L, "has 0 bytes")]
    [TestCase(1000L, "has 1000 bytes, not a multiple of 512")]
    [TestCase(DiskSize + 1L, "has 4194305 bytes, not a multiple of 512")]
    public async Task A_size_that_is_none_is_refused(long size, string message)
    {
        using Socket listener = Listen();
        Task<NetworkStream> lying = NegotiateAsync(listener, size);
        Assert.That(() => Open(), Throws.TypeOf<TargetException>().With.Message.Contains(message));
        await (await lying.WaitAsync(Soon)).DisposeAsync();
    }

    [TestCase(1024, "has 9216 bytes, not a multiple of 4096")]
    [TestCase(2048, "has 9216 bytes, not a multiple of 4096")]
    public async Task A_size_that_is_not_whole_in_the_sectors_of_large_blocks_is_refused(int minBlock, string message)
    {
        using Socket listener = Listen();
        Task<NetworkStream> lying = NegotiateAsync(listener, 9216, minBlock);
        Assert.That(() => Open(), Throws.TypeOf<TargetException>().With.Message.Contains(message));
        await (await lying.WaitAsync(Soon)).DisposeAsync();
    }

    [Test]
    public async Task Who_does_not_speak_NBD_is_found_out()
    {
        using Socket listener = Listen();
        Task<Socket> accepting = listener.AcceptAsync();
        Task<ImageDriver> opening = Task.Run(() => Open());
        using Socket client = await accepting.WaitAsync(Soon);
        await client.SendAsync("HTTP/1.1 200 OK\r\n\r\n"u8.ToArray());
        Assert.That(
            async () => await opening,
            Throws.TypeOf<TargetException>().With.Message.Contains("there is no NBD server"));
    }

    [Test]
    public void A_server_that_says_nothing_is_given_up()
    {
        using Socket listener = Listen();
        Assert.That(
            () => Open("?timeout=1"),
            Throws.TypeOf<TargetException>().With.Message.Contains("has not answered for 1 s"));
    }

    [Test]
    public async Task A_server_that_stops_answering_is_lost()
    {
        using Socket listener = Listen();
        Task<NetworkStream> negotiating = NegotiateAsync(listener, DiskSize);
        ImageDriver disk = Open("?timeout=1");
        using NetworkStream silent = await negotiating.WaitAsync(Soon);
        Task<byte[]> reading = disk.ReadAsync(0, 512);
        using NetworkStream next = await NegotiateAsync(listener, DiskSize).WaitAsync(Soon);
        byte[] asked = new byte[28];
        await next.ReadExactlyAsync(asked).AsTask().WaitAsync(Soon);
        await next.WriteAsync(new byte[][] { [.. Simple(asked[8..16]), .. Bytes(9, 512)] }[0]);
        Assert.That(await reading, Is.EqualTo(Bytes(9, 512)));
        Assert.That(Warnings, Has.Some.Contains("the server has not answered for 1 s"));
    }

    private Socket Listen()
    {
        File.Delete(SocketPath);
        Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(SocketPath));
        listener.Listen();
        return listener;
    }

    // An honest negotiation, with chunks.
    private static async Task<NetworkStream> NegotiateAsync(Socket listener, long size, int minBlock = 1)
    {
        NetworkStream stream = new(await listener.AcceptAsync(), ownsSocket: true);
        await stream.WriteAsync(new byte[][] { [.. "NBDMAGICIHAVEOPT"u8, 0, 3] }[0]);
        await stream.ReadExactlyAsync(new byte[4]);
        while (true)
        {
            byte[] head = new byte[16];
            await stream.ReadExactlyAsync(head);
            byte[] data = new byte[BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(12))];
            await stream.ReadExactlyAsync(data);
            bool isGo = head[11] == (byte)NbdOption.Go;
            byte[] info = [.. Reply(head[8..12], NbdOptionReply.Info, 12), 0, 0, .. Number(size), 0,
                (byte)(NbdExportFlags.HasFlags | NbdExportFlags.Flush),
                .. Reply(head[8..12], NbdOptionReply.Info, 14), 0, 3, 0, 0, (byte)(minBlock >> 8), (byte)minBlock,
                0, 0, 16, 0, 2, 0, 0, 0];
            await stream.WriteAsync(
                new byte[][] { [.. isGo ? info : [], .. Reply(head[8..12], NbdOptionReply.Ack, 0)] }[0]);
            if (isGo) return stream;
        }
    }

    private static byte[] Reply(byte[] option, NbdOptionReply reply, byte length) =>
        [.. Number(0x3e889045565a9), .. option, 0, 0, 0, (byte)reply, 0, 0, 0, length];

    private static byte[] Simple(byte[] cookie) => [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, .. cookie];

    private static byte[] Chunk(byte[] cookie, ushort type, int length) =>
        [0x66, 0x8e, 0x33, 0xef, 0, 1, (byte)(type >> 8), (byte)type, .. cookie, (byte)(length >> 24),
            (byte)(length >> 16), (byte)(length >> 8), (byte)length];

    private static byte[] Number(long value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64BigEndian(bytes, value);
        return bytes;
    }
}
