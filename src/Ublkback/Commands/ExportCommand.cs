using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Mono.Unix;
using Ublkback.Block;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;
using Ublkback.Nbd.Server;

namespace Ublkback.Commands;

/// <summary><c>ublkback export</c></summary>
internal static partial class ExportCommand
{
    private const int DefaultPort = 10809; // registered for nbd

    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new(
            "target")
        { Description = "What is offered, as in a guest's configuration. No guest may be writing it." };
        Option<string?> unix = new("--unix") { Description = "Listen at a Unix socket, for this user." };
        Option<string?> tcp = new("--tcp")
        {
            Description =
            "Listen at an address and port, such as 127.0.0.1:10809. Others than this host's own need TLS."
        };
        Option<bool> readOnly =
            new("--read-only") { Description = "Clients may not write. The image may be in use by other readers." };
        Option<string> name = new(
            "--name")
        { Description = "The name of the export, as clients give it.", DefaultValueFactory = _ => "" };
        Option<int> shared = new("--shared")
        {
            Description = "How many clients there may be at a time.",
            DefaultValueFactory = _ => NbdServerOptions.DefaultMaxClients
        };
        Option<string?> certificates =
            new("--tls-certs") { Description = "Speak TLS, with server-cert.pem and server-key.pem of a folder." };
        Option<bool> verify =
            new("--tls-verify-peer") { Description = "Clients must have a certificate of the folder's ca-cert.pem." };
        Command command = new("export", """
            Offer any image to NBD clients, such as QEMU, nbdcopy or another host's ublkback, until SIGTERM.

            Examples:
              ublkback export qcow2:/images/web.qcow2 --unix /run/web.sock
              ublkback export /images/golden.img --read-only --tcp 192.0.2.1:10809 --tls-certs /etc/pki/nbd
            Then, elsewhere:
              qemu-img info nbd+unix:///?socket=/run/web.sock
              disk = [ 'vdev=xvda,format=raw,access=ro,script=block-ublkback,target=nbds://192.0.2.1/' ]
            """)
        {
            target, unix, tcp, readOnly, name, shared, certificates, verify,
        };
        command.SetAction((arguments, _) =>
        {
            NbdServerOptions options = new(
                FindPlace(
                    arguments.GetValue(unix), arguments.GetValue(tcp),
                    arguments.GetValue(certificates) is not null), arguments.GetValue(name)!,
                    arguments.GetValue(shared));
            if (options.MaxClients < 1)
                throw new CommandException($"--shared {options.MaxClients} lets nobody in", "give 1 or more");
            if (arguments.GetValue(certificates) is string folder)
                options = options.WithTls(folder, arguments.GetValue(verify));
            else if (arguments.GetValue(verify)) throw new CommandException("--tls-verify-peer needs --tls-certs");
            BlockTarget parsed = BlockTarget.Parse(arguments.GetRequiredValue(target));
            return LongRun.RunAsync((logger, stopping) =>
                RunAsync(catalog.MakeForTools(), parsed, arguments.GetValue(readOnly), options, logger, stopping));
        });
        return command;
    }

    private static async Task RunAsync(
        BlockCatalog catalog, BlockTarget target, bool isReadOnly, NbdServerOptions options, ILogger logger,
        CancellationToken stopping)
    {
        try
        {
            ImageOpening opening = ToolOpening.For(
                "ublkback export", isReadOnly) with
            {
                OutlivesProcess = Environment.IsPrivilegedProcess,
                Warn = text => Trouble(logger, text)
            };
            IBlockImage image = catalog.Open(target, opening);
            await using (image.ConfigureAwait(false))
            {
                int count = image.AllowsManyWorkers ? Environment.ProcessorCount : 1;
                List<Worker> workers = [.. Enumerable.Range(0, count).Select(number => new Worker($"worker-{number}"))];
                NbdServer server = new(options, image, workers, text => Client(logger, text));
                await using (server.ConfigureAwait(false))
                {
                    Console.WriteLine($"ready: {NameOf(server.Place, options)}");
                    await Task.Delay(Timeout.Infinite, stopping)
                        .ContinueWith(_ => { }, TaskScheduler.Default).ConfigureAwait(false);
                }
            }
        }
        catch (SocketException failure)
        {
            throw new CommandException($"the server cannot listen on {options.Place}: {failure.Message}", failure);
        }
    }

    private static EndPoint FindPlace(string? unix, string? tcp, bool hasTls)
    {
        if (unix is null == tcp is null)
            throw new CommandException("where are clients to connect? Give --unix PATH or --tcp ADDRESS:PORT");
        if (unix is not null)
        {
            if (hasTls) throw new CommandException("TLS is for --tcp: a Unix socket does not leave this host");
            return FindUnixPlace(Path.GetFullPath(unix));
        }

        if (!IPEndPoint.TryParse(
            tcp!.Replace("localhost", "127.0.0.1", StringComparison.Ordinal), out IPEndPoint? place))
            throw new CommandException(
                $"--tcp {tcp} is no address", $"give one such as 127.0.0.1:{DefaultPort} or [::1]:{DefaultPort}");
        bool saysPort = tcp.EndsWith($":{place.Port}", StringComparison.Ordinal);
        if (!saysPort) place.Port = DefaultPort;
        return IPAddress.IsLoopback(place.Address) || hasTls
            ? place
            : throw new CommandException(
                $"--tcp {tcp} lets others read and write the disk", "add --tls-certs, or use 127.0.0.1 or --unix");
    }

    private static UnixDomainSocketEndPoint FindUnixPlace(string path)
    {
        UnixDomainSocketEndPoint place;
        try
        {
            place = new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentOutOfRangeException)
        {
            throw new CommandException($"--unix {path} is longer than a socket's name can be (107 bytes)");
        }

        if (!Path.Exists(path)) return place;
        if (!UnixFileSystemInfo.GetFileSystemEntry(path).IsSocket)
            throw new CommandException($"{path} is there already and no socket", "choose another name");
        using Socket probe = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(place);
        }
        catch (SocketException failure) when (failure.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(path); // of a server that was killed
            return place;
        }
        catch (SocketException failure)
        {
            throw new CommandException(
                $"{path} is there already, and {failure.Message}", "choose another name", failure);
        }

        throw new CommandException($"another server listens at {path}", "end it first, or choose another name");
    }

    private static string NameOf(EndPoint place, NbdServerOptions options) => place is IPEndPoint ip
        ? $"nbd{(options.UsesTls ? "s" : "")}://{ip}/{Uri.EscapeDataString(options.ExportName)}"
        : NbdUri.OfSocket(place.ToString()!, options.ExportName);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Text}")]
    private static partial void Trouble(ILogger logger, string text);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Text}")]
    private static partial void Client(ILogger logger, string text);
}
