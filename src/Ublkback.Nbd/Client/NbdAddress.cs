using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// Where a server is, as targets name it: <c>nbd:unix:/path?export=NAME</c>, <c>nbd://host:port/NAME</c>,
/// <c>nbds://…</c>.
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

    private const int DefaultPort = 10809; // registered for nbd
    private const string UnixPrefix = "unix:";

    /// <summary>Reads the address of a target.</summary>
    /// <exception cref="TargetException">It is none.</exception>
    public static NbdAddress Parse(BlockTarget target)
    {
        string text = $"{target.Scheme}:{target.Location}", location = target.Location;
        bool isSecret = target.Scheme == SecretScheme;
        string? export = target.Options.GetValueOrDefault(ExportOption);
        if (export is not null) text += $"?{ExportOption}={export}";
        if (location.StartsWith(UnixPrefix, StringComparison.Ordinal))
        {
            string socket = location[UnixPrefix.Length..];
            if (!socket.StartsWith('/'))
                throw new TargetException($"{text} names no socket: write {target.Scheme}:unix:/path");
            return new NbdAddress(text, socket, "localhost", 0, CheckExport(export ?? "", text), isSecret);
        }

        if (!location.StartsWith("//", StringComparison.Ordinal)
            || !Uri.TryCreate($"{target.Scheme}:{location}", UriKind.Absolute, out Uri? uri) || uri.Host.Length == 0)
            throw new TargetException($"{text} names no server: write {target.Scheme}:unix:/path?export=NAME or "
                + $"{target.Scheme}://host:port/NAME");
        string path = Uri.UnescapeDataString(uri.AbsolutePath).TrimStart('/');
        if (export is not null && path.Length > 0)
            throw new TargetException($"{text} names two exports: leave out one of them");
        return new NbdAddress(
            text, null, uri.IdnHost, uri.Port > 0 ? uri.Port : DefaultPort, CheckExport(export ?? path, text),
            isSecret);
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
}
