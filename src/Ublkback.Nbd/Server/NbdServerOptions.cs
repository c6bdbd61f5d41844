using System.Net;
using System.Net.Security;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Server;

/// <summary>How a disk is offered to NBD clients.</summary>
/// <param name="Place">Where clients connect to.</param>
/// <param name="ExportName">The name that clients give.</param>
/// <param name="MaxClients">How many there may be at a time.</param>
public sealed record NbdServerOptions(
    EndPoint Place, string ExportName = "", int MaxClients = NbdServerOptions.DefaultMaxClients)
{
    /// <summary>How many clients there may be at a time when nobody says.</summary>
    public const int DefaultMaxClients = 16;

    /// <summary>Whether clients must speak TLS.</summary>
    public bool UsesTls => Tls is not null;

    /// <summary>How TLS is spoken, which every client then must; null for in the clear.</summary>
    internal SslServerAuthenticationOptions? Tls { get; private init; }

    /// <summary>The same with TLS. Reads files.</summary>
    /// <param name="folder">Where <c>server-cert.pem</c> and <c>server-key.pem</c> are.</param>
    /// <param name="verifiesClients">Whether clients must have a certificate of <c>ca-cert.pem</c> there.</param>
    /// <exception cref="TargetException">The certificates cannot be used.</exception>
    public NbdServerOptions WithTls(string folder, bool verifiesClients) =>
        this with { Tls = NbdTls.ForServer(folder, verifiesClients) };
}
