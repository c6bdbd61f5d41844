using System.Globalization;
using System.Net.Security;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// Opens disks on NBD servers: <c>nbd:unix:/path?export=NAME</c>, <c>nbd+unix:///NAME?socket=/path</c>,
/// <c>nbd://host:port/NAME</c>, and with TLS <c>nbds://host:port/NAME</c>. Options:
/// <c>reconnect-delay=60</c>, seconds that requests wait for a server that is
/// lost; <c>timeout=30</c>, seconds after which a server that does not answer is lost; <c>connections=many</c> (the
/// default: one for each worker, if the server knows that) or
/// <c>connections=one</c>; with TLS <c>tls-certs=/folder</c> (else what this host trusts) and <c>tls-hostname=NAME</c>.
/// </summary>
public static class NbdOpener
{
    private const string DelayOption = "reconnect-delay";
    private const string TimeoutOption = "timeout";
    private const string CertificatesOption = "tls-certs";
    private const string HostnameOption = "tls-hostname";
    private const int DefaultDelay = 60;
    private const int DefaultTimeout = 30;
    private const int MaxSectorSize = 4096;

    /// <summary>Adds the schemes to a catalog.</summary>
    public static BlockCatalog AddNbd(this BlockCatalog catalog)
    {
        ArgumentNullException.ThrowIfNull(catalog);
        foreach (string scheme in NbdAddress.Schemes)
            catalog.AddImage(new ImageScheme(scheme, Open) { FindUri = FindUri });
        return catalog;
    }

    /// <summary>
    /// The URI of what a target names, which QEMU reads too; null for other targets and those with options of ours.
    /// </summary>
    /// <exception cref="TargetException">The target names no server.</exception>
    public static string? FindUri(BlockTarget target)
    {
        ArgumentNullException.ThrowIfNull(target);
        if (!NbdAddress.Schemes.Contains(target.Scheme)) return null;
        NbdAddress address = NbdAddress.Parse(target);
        bool isPlain = target.Options.Keys.All(key => key is NbdAddress.ExportOption or NbdAddress.SocketOption);
        return isPlain && address is { SocketPath: string socket, IsSecret: false }
            ? NbdUri.OfSocket(socket, address.Export)
            : null;
    }

    /// <summary>Opens a disk. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        target.AllowOnly(
            NbdAddress.ExportOption, NbdAddress.SocketOption, DelayOption, TimeoutOption, "connections",
            CertificatesOption, HostnameOption);
        NbdAddress address = NbdAddress.Parse(target);
        if (!address.IsSecret
            && (target.Options.ContainsKey(CertificatesOption) || target.Options.ContainsKey(HostnameOption)))
            throw new TargetException(
                $"{address.Text} has options of TLS and does not speak it",
                $"write {NbdAddress.SecretScheme}: instead of {NbdAddress.Scheme}:");
        TimeSpan maxOutage = GetSeconds(
            target, DelayOption, DefaultDelay), patience = GetSeconds(target, TimeoutOption, DefaultTimeout);
        bool usesMany = target.GetChoice("connections", "many", "one") == "many";
        SslClientAuthenticationOptions? tls = address.IsSecret
            ? NbdTls.ForClient(
                target.Options.GetValueOrDefault(HostnameOption, address.Host),
                target.Options.GetValueOrDefault(CertificatesOption))
            : null;
        NbdConnector connector = new(address, tls, patience, opening.Warn);
        NbdConnection first = Connect(connector);
        try
        {
            return new NbdImage(
                connector, first, Measure(address, first.Export, opening), usesMany, maxOutage, opening.Warn);
        }
        catch
        {
            first.Abort();
            throw;
        }
    }

    // The image's worker is not known yet, so the connection begins on another.
    private static NbdConnection Connect(NbdConnector connector)
    {
        using Worker worker = new("nbd-connect");
        try
        {
            return worker.InvokeAsync(connector.ConnectAsync).GetAwaiter().GetResult();
        }
        catch (IOException failure)
        {
            throw new TargetException($"{connector.Name} cannot be opened: {failure.Message}", failure);
        }
    }

    private static ImageGeometry Measure(NbdAddress address, NbdExport export, ImageOpening opening)
    {
        if (export.MinBlock > MaxSectorSize)
            throw new TargetException(
                $"{address.Text} wants requests of whole {export.MinBlock} bytes; guests know up to {MaxSectorSize}");
        int sectorSize = export.MinBlock <= BlockRequest.SectorSize ? BlockRequest.SectorSize : MaxSectorSize;
        if (export.MaxBlock < sectorSize)
            throw new TargetException($"{address.Text} takes requests of {export.MaxBlock} bytes only");
        if (export.Size < sectorSize)
            throw new TargetException($"{address.Text} has {export.Size} bytes: that is no disk");
        if (export.Size % sectorSize != 0)
            throw new TargetException($"{address.Text} has {export.Size} bytes, not a multiple of {sectorSize}: "
                + "its end could not be read; have the server round the size up (nbdkit --filter=truncate "
                + $"round-up={sectorSize})");
        if (!opening.IsReadOnly && export.Can(NbdExportFlags.ReadOnly))
            throw new TargetException($"{address.Text} is read-only", "attach the disk read-only (access=ro)");
        if (!opening.IsReadOnly && !export.Can(NbdExportFlags.Flush) && !export.Can(NbdExportFlags.ForceUnitAccess))
            opening.Warn($"{address.Text}: the server knows no flush: what the guest flushes is as safe as the "
                + "server makes every write");
        return new ImageGeometry(
            (ulong)export.Size / BlockRequest.SectorSize, sectorSize, MaxSectorSize, opening.IsReadOnly,
            opening.IsReadOnly || !opening.AllowsDiscard || !export.Can(NbdExportFlags.Trim) ? 0 : MaxSectorSize);
    }

    private static TimeSpan GetSeconds(BlockTarget target, string key, int standard)
    {
        const int Longest = 24 * 60 * 60;
        if (!target.Options.TryGetValue(key, out string? text)) return TimeSpan.FromSeconds(standard);
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int seconds)
            && seconds is > 0 and <= Longest
            ? TimeSpan.FromSeconds(seconds)
            : throw new TargetException(
                $"option {key}={text} of target {target.Location} is no number of seconds from 1 to {Longest}");
    }
}
