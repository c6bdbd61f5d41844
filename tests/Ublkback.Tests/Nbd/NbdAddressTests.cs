using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Nbd.Client;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Tests.Nbd;

/// <summary>Addresses of servers, as the URI standard, QEMU and our own documents write them.</summary>
public sealed class NbdAddressTests
{
    [TestCase("nbd://host", "host:10809", "")]
    [TestCase("nbd://host/", "host:10809", "")]
    [TestCase("nbd://host/disk", "host:10809", "disk")]
    [TestCase("nbd://host//disk", "host:10809", "/disk")]
    [TestCase("nbd://host/%2Fdisk", "host:10809", "/disk")]
    [TestCase("nbd://host///", "host:10809", "//")]
    [TestCase("nbd://host/a/../b/./c", "host:10809", "a/../b/./c")]
    [TestCase("nbd://host/a%20b%3Fc%23", "host:10809", "a b?c#")]
    [TestCase("nbd://host/gr\u00f6\u00dfe", "host:10809", "gr\u00f6\u00dfe")]
    [TestCase("nbd://host/gr%C3%B6%C3%9Fe", "host:10809", "gr\u00f6\u00dfe")]
    [TestCase("nbd://192.0.2.1:1/x", "192.0.2.1:1", "x")]
    [TestCase("nbd://[::1]:7/x", "[::1]:7", "x")]
    [TestCase("nbd://[::1]/x", "[::1]:10809", "x")]
    [TestCase("nbd://somebody@host:7/x", "host:7", "x")]
    [TestCase("nbd+tcp://host:7/x", "host:7", "x")]
    [TestCase("nbds+tcp://host:7/x", "host:7", "x")]
    [TestCase("nbd:host:7", "host:7", "")]
    [TestCase("nbd:host:7:exportname=a/b", "host:7", "a/b")]
    [TestCase("nbd+unix:///?socket=/s", "/s", "")]
    [TestCase("nbd+unix://?socket=/s", "/s", "")]
    [TestCase("nbd+unix:///disk?socket=/s", "/s", "disk")]
    [TestCase("nbd+unix:////disk?socket=/s", "/s", "/disk")]
    [TestCase("nbds+unix:///disk?socket=/s", "/s", "disk")]
    [TestCase("nbd+unix:///a%20b?socket=/run/%C3%B6%3F%26", "/run/\u00f6?&", "a b")]
    [TestCase("nbd:unix:/s", "/s", "")]
    [TestCase("nbd:unix:/s?export=/disk", "/s", "/disk")]
    [TestCase("nbd:unix:/s:exportname=a b", "/s", "a b")]
    [TestCase("trace+nbd+unix:///disk?socket=/s", "/s", "disk")]
    public void Names_the_server_and_the_disk(string target, string place, string export)
    {
        NbdAddress address = NbdAddress.Parse(BlockTarget.Parse(target));
        Assert.That(
            (address.SocketPath ?? $"{address.Host}:{address.Port}", address.Export), Is.EqualTo((place, export)));
        Assert.That(address.IsSecret, Is.EqualTo(target.StartsWith("nbds", StringComparison.Ordinal)));
    }

    [TestCase("nbd://", "names no server")]
    [TestCase("nbd://host:0/x", "names no server")]
    [TestCase("nbd://host:99999/x", "names no server")]
    [TestCase("nbd://::1:7/x", "names no server")]
    [TestCase("nbd:/x", "names no server")]
    [TestCase("nbd+unix:/x", "names no server")]
    [TestCase("nbd+unix:///x", "names no socket")]
    [TestCase("nbd+unix:///x?socket=s", "names no socket")]
    [TestCase("nbd+unix://host/x?socket=/s", "three slashes")]
    [TestCase("nbd://host/x?socket=/s", "begin it with nbd+unix:")]
    [TestCase("nbd://host/x?export=y", "names two exports")]
    [TestCase("nbd:unix:/s:exportname=x?export=y", "names two exports")]
    [TestCase("nbd://host/x#y", "write %23")]
    [TestCase("nbd://host/x%00", "control character")]
    public void Refuses_what_names_none(string target, string message) =>
        Assert.That(
            () => NbdAddress.Parse(BlockTarget.Parse(target)),
            Throws.TypeOf<TargetException>().With.Message.Contains(message));

    [TestCase("/run/s", "")]
    [TestCase("/run/a b&c?d%20", "/disk one?")]
    public void What_is_written_is_read(string socket, string export)
    {
        NbdAddress address = NbdAddress.Parse(BlockTarget.Parse(NbdUri.OfSocket(socket, export)));
        Assert.That((address.SocketPath, address.Export), Is.EqualTo((socket, export)));
    }

    [Test]
    public void A_backing_name_keeps_the_disk() =>
        Assert.That(
            NbdOpener.FindUri(BlockTarget.Parse("nbd:unix:/run/s?export=a b")),
            Is.EqualTo("nbd+unix:///a%20b?socket=/run/s"));
}
