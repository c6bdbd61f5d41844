using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// Where a server is: a URI of NBD (<c>nbd://host:port/NAME</c>, <c>nbd+unix:///NAME?socket=/path</c>,
/// <c>nbds://…</c>), QEMU's older form (<c>nbd:host:port:exportname=NAME</c>), or <c>nbd:unix:/path?export=NAME</c>.
/// </summary>
/// <param name="Text">The same, for people.</param>
/// <param name="SocketPath">The path of its Unix socket; null when it is on the network.</param>
/// <param name="Host">Its name or address on the network.</param>
/// <param name="Port">Its port there.</param>
/// <param name="Export">Which of its disks.</param>
/// <param name="IsSecret">Whether TLS is spoken.</param>
internal sealed record NbdAddress(string Text, string? SocketPath, string Host, int Port, string Export, bool IsSecret)
{
    /// <summary>The scheme of targets in the clear.</summary>
    public const string Scheme = "nbd";

    /// <summary>The scheme of targets with TLS.</summary>
    public const string SecretScheme = "nbds";

    /// <summary>The option that names the disk, for Unix sockets.</summary>
    public const string ExportOption = "export";

    /// <summary>The option that names the socket, in URIs.</summary>
    public const string SocketOption = "socket";

    private const int DefaultPort = 10809; // registered for nbd
    private const string UnixPrefix = "unix:";
    private const string UnixTransport = "+unix";
    private const string TcpTransport = "+tcp";
    private const string OldExport = ":exportname="; // as QEMU wrote it before there were URIs

    /// <summary>All schemes, as the URI standard of NBD and QEMU name them.</summary>
    public static IReadOnlyList<string> Schemes { get; } =
    [
        Scheme, SecretScheme, Scheme + UnixTransport, SecretScheme + UnixTransport, Scheme + TcpTransport,
        SecretScheme + TcpTransport,
    ];

    /// <summary>Reads the address of a target.</summary>
    /// <exception cref="TargetException">It is none.</exception>
    public static NbdAddress Parse(BlockTarget target)
    {
        string text = $"{target.Scheme}:{target.Location}", location = target.Location;
        string? export = target.Options.GetValueOrDefault(ExportOption);
        string? socket = target.Options.GetValueOrDefault(SocketOption);
        if (socket is not null) text += $"?{SocketOption}={socket}";
        if (export is not null) text += $"{(socket is null ? '?' : '&')}{ExportOption}={export}";
        bool isUnix = target.Scheme.EndsWith(UnixTransport, StringComparison.Ordinal);
        bool isTcp = target.Scheme.EndsWith(TcpTransport, StringComparison.Ordinal);
        bool isSecret = target.Scheme.StartsWith(SecretScheme, StringComparison.Ordinal);
        bool isUri = location.StartsWith("//", StringComparison.Ordinal);
        if (socket is not null && !isUnix)
            throw new TargetException(
                $"{text} names a socket", $"begin it with {(isSecret ? SecretScheme : Scheme)}{UnixTransport}:");
        if (!isUri && !isUnix && !isTcp) return ParsePlain(text, location, export, isSecret);
        if (!isUri) throw NotUnderstood(text, isSecret);

        int slash = location.IndexOf('/', 2);
        string authority = slash < 0 ? location[2..] : location[2..slash];
        string name = slash < 0 ? "" : Decode(location[(slash + 1)..], text);
        if (export is not null && name.Length > 0)
            throw new TargetException($"{text} names two exports", "leave out one of them");
        name = CheckExport(export ?? name, text);
        if (!isUnix)
        {
            (string host, int port) = ReadHost(authority[(authority.IndexOf('@') + 1)..], text, isSecret);
            return new NbdAddress(text, null, host, port, name, isSecret);
        }

        if (authority.Length > 0)
            throw new TargetException(
                $"{text} names the host {authority} and a socket", "write three slashes before the export's name");
        string path = Decode(socket ?? "", text);
        if (!path.StartsWith('/'))
            throw new TargetException($"{text} names no socket", $"add ?{SocketOption}=/path");
        return new NbdAddress(text, path, "localhost", 0, name, isSecret);
    }

    /// <summary>Where to connect to, one after the other.</summary>
    /// <exception cref="IOException">The name is not known.</exception>
    public async Task<IReadOnlyList<EndPoint>> ResolveAsync()
    {
        try
        {
            if (SocketPath is not null) return [new UnixDomainSocketEndPoint(SocketPath)];
            string host = Host.Trim('[', ']');
            IPAddress[] addresses = IPAddress.TryParse(host, out IPAddress? literal)
                ? [literal]
                : await Task.Run(() => Dns.GetHostAddresses(host));
            return [.. addresses.Select(address => new IPEndPoint(address, Port))];
        }
        catch (Exception failure) when (failure is SocketException or ArgumentException)
        {
            throw new IOException(failure.Message, failure);
        }
    }

    private static string CheckExport(string name, string text) =>
        System.Text.Encoding.UTF8.GetByteCount(name) <= NbdProtocol.MaxName
        ? name
        : throw new TargetException(string.Create(
            CultureInfo.InvariantCulture, $"the export's name in {text} is longer than {NbdProtocol.MaxName} bytes"));

    // Without slashes: a socket or a host, and after that perhaps a name, as it is.
    private static NbdAddress ParsePlain(string text, string location, string? export, bool isSecret)
    {
        int old = location.IndexOf(OldExport, StringComparison.Ordinal);
        string place = old < 0 ? location : location[..old];
        if (export is not null && old >= 0)
            throw new TargetException($"{text} names two exports", "leave out one of them");
        string name = CheckExport(export ?? (old < 0 ? "" : location[(old + OldExport.Length)..]), text);
        if (place.StartsWith(UnixPrefix, StringComparison.Ordinal))
        {
            string socket = place[UnixPrefix.Length..];
            if (!socket.StartsWith('/'))
                throw new TargetException(
                    $"{text} names no socket", $"write {(isSecret ? SecretScheme : Scheme)}:unix:/path");
            return new NbdAddress(text, socket, "localhost", 0, name, isSecret);
        }

        if (place.Contains('/') || !place.Contains(':')) throw NotUnderstood(text, isSecret);
        (string host, int port) = ReadHost(place, text, isSecret);
        return new NbdAddress(text, null, host, port, name, isSecret);
    }

    // A host's name or address, an address of version 6 in brackets, and perhaps a port.
    private static (string Host, int Port) ReadHost(string authority, string text, bool isSecret)
    {
        int close = authority.IndexOf(']');
        int colon = authority.IndexOf(':', close + 1);
        string host = colon < 0 ? authority : authority[..colon];
        int port = DefaultPort;
        bool isPort = colon < 0 || colon == authority.Length - 1
            || (int.TryParse(authority[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out port)
                && port is > 0 and <= ushort.MaxValue);
        if (colon == authority.Length - 1) port = DefaultPort;
        bool isHost = close < 0
            ? Uri.CheckHostName(host) != UriHostNameType.Unknown
            : host.StartsWith('[') && close == host.Length - 1 && IPAddress.TryParse(host, out _);
        if (!isPort || !isHost) throw NotUnderstood(text, isSecret);
        return (close < 0 ? new IdnMapping().GetAscii(host) : host, port);
    }

    // A part of a URI as it was before it was written into one.
    private static string Decode(string part, string text)
    {
        if (part.Contains('#'))
            throw new TargetException($"{text} has a # in it, which ends a URI", "write %23 if it belongs to a name");
        string decoded = Uri.UnescapeDataString(part);
        return !decoded.Any(char.IsControl)
            ? decoded
            : throw new TargetException($"{text} has a control character in it");
    }

    private static TargetException NotUnderstood(string text, bool isSecret)
    {
        string scheme = isSecret ? SecretScheme : Scheme;
        return new TargetException(
            $"{text} names no server",
            $"write {scheme}:unix:/path?export=NAME, "
                + $"{scheme}://host:port/NAME or {scheme}{UnixTransport}:///NAME?{SocketOption}=/path");
    }
}
