using System.CommandLine;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>
/// Commands of the form <c>ublkback VERB [DOMID [DEVICE]]</c>, which the daemon carries out on disks.
/// </summary>
internal static class DiskCommands
{
    /// <summary>Creates a command, which prints a line for each disk that it was carried out on.</summary>
    /// <param name="control">The daemon's command.</param>
    /// <param name="description">The help text.</param>
    /// <param name="makeRequest">Creates the request from domid, device and all arguments.</param>
    /// <param name="tell">Returns the end of a disk's line.</param>
    public static Command Make<TRequest>(
        ControlCommand<TRequest, VbdsReply> control, string description,
        Func<int?, string?, ParseResult, TRequest> makeRequest, Func<VbdReport, string> tell)
        where TRequest : ControlRequest
    {
        Option<string> host = CommonOptions.Host();
        Argument<int?> domid = new("domid")
        {
            Description = "The guest; all guests when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Argument<string?> device = new("device")
        {
            Description = "The disk's name in the guest, such as xvda; all its disks when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Command command = new(control.Name, description) { host, domid, device };
        command.SetAction(async (arguments, _) =>
        {
            TRequest request = makeRequest(arguments.GetValue(domid), arguments.GetValue(device), arguments);
            IReadOnlyList<VbdReport> vbds = await AskAsync(
                HostEnvironment.Parse(arguments.GetRequiredValue(host)), control, request).ConfigureAwait(false);
            foreach (VbdReport vbd in vbds)
                Console.WriteLine($"guest {vbd.Domid} {vbd.Device}, {vbd.Target}: {tell(vbd)}");
            return 0;
        });
        return command;
    }

    /// <summary>Asks the daemon to carry out a request on disks, and returns these.</summary>
    /// <exception cref="CommandException">There is no daemon, no such disk, or it could not be done.</exception>
    public static async Task<IReadOnlyList<VbdReport>> AskAsync<TRequest>(
        HostEnvironment host, ControlCommand<TRequest, VbdsReply> control, TRequest request)
        where TRequest : ControlRequest
    {
        VbdsReply reply = await ControlClient.AskAsync(host, control, request).ConfigureAwait(false);
        IReadOnlyList<VbdReport> vbds = reply.Vbds;
        return vbds.Count > 0
            ? vbds
            : throw new CommandException("there is no such disk: 'ublkback list' shows those there are");
    }
}
